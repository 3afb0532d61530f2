"""Make the pictures of the README from the demo: a forecast in a terminal, and the report.

    make pictures

The report is photographed by headless Chromium; where that is not installed, its picture is left as it is.
"""

import io
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI

from resque import Forecast, Ledger

IMAGES = Path(__file__).parent / "images"
LEDGER, REPORT = Path("demo-run/resque.db"), Path("report.html")
COLUMNS = 78
WINDOW = 1120, 912
MAX_COLORS = 256
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def forecast_picture(forecast: Forecast) -> str:
    """Return a forecast as an SVG of a terminal, without fonts from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(str(forecast), highlight=False, markup=False)
    drawing = console.export_svg(title="print(forecast)", theme=MONOKAI, unique_id="forecast")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawing, flags=re.S)


def report_picture(page: Path, chromium: str) -> Image.Image:
    """Return the top of the report as an image of few colors."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "report.png"
        size = f"--window-size={WINDOW[0]},{WINDOW[1]}"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/user"]
        command = [chromium, *options, size, f"--screenshot={shot}", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        with Image.open(shot) as image:
            return image.convert("RGB").quantize(MAX_COLORS)


def main() -> None:
    """Write both pictures to ``docs/images``."""
    IMAGES.mkdir(exist_ok=True)
    forecasts = Ledger(LEDGER).forecasts()
    shown = next((forecast for forecast in forecasts if not forecast.reliability_issues), forecasts[0])
    (IMAGES / "forecast.svg").write_text(forecast_picture(shown), encoding="utf-8")
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is not None:
        report_picture(REPORT, chromium).save(IMAGES / "report.png", optimize=True)


if __name__ == "__main__":
    main()
