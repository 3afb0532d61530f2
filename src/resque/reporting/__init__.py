"""Numbers and sentences for people: terminal tables, HTML, Markdown, Software Carbon Intensity."""
