"""License and limitations, in the words of a model's card."""

import pytest

from resque.models.model_card import ModelCard, read_model_card

CARD = "---\nlanguage: en\nlicense: {license}\n---\n# Net\n\n## {heading}\n\nTrained on\nEnglish.\n\nMore.\n# End\n"


@pytest.mark.parametrize("heading", ["Limitations and bias", "Bias, Risks, and Limitations", "Out-of-scope use"])
@pytest.mark.parametrize("license_", ["mit", '"cc-by-4.0"', "'other'"])
def test_the_readme_of_a_folder_is_read(folder, heading, license_):
    (folder / "README.md").write_text(CARD.format(license=license_, heading=heading))
    (folder / "LICENSE").write_text("Other License\n")
    assert read_model_card(f"hf:{folder}") == ModelCard(license_.strip("'\""), "Trained on English.")


@pytest.mark.parametrize(
    ("files", "card"),
    [
        ({}, ModelCard()),
        ({"README.md": ""}, ModelCard()),
        ({"README.md": "# Net\nlicense: mit\n"}, ModelCard()),
        ({"README.md": "---\nlicense:\n---\n# Limitations"}, ModelCard()),
        ({"LICENSE": "\n  Apache License\n"}, ModelCard("Apache License")),
        ({"LICENSE.txt": "MIT License\n", "README.md": "---\ntags: x"}, ModelCard("MIT License")),
    ],
)
def test_what_a_folder_does_not_state_is_unknown(folder, files, card):
    for name, text in files.items():
        (folder / name).write_text(text)
    assert read_model_card(f"hf:{folder}") == card


def test_bytes_that_are_no_text_are_no_error(folder):
    (folder / "README.md").write_bytes(b"---\nlicense: mit\n---\n\xff\xfe\n")
    (folder / "LICENSE").mkdir()
    assert read_model_card(f"hf:{folder}").license == "mit"


@pytest.mark.parametrize("spec", ["net.py:build", "torchvision:resnet18", "timm:resnet18", "hf:none"])
def test_elsewhere_nothing_is_known(spec):
    assert read_model_card(spec) == ModelCard()
