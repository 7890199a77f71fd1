"""Make the pictures of docs/messages.md: real messages, drawn by a headless Chromium.

    python tools/message_pictures.py            writes docs/pictures/message-*.png and docs/messages.md
    python tools/message_pictures.py FOLDER     writes all variants (light and dark, wide and phone) there instead

Slack messages look as the message sinks' page shows them; mails are what a mail client gets.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs/pictures"
sys.path.insert(0, str(ROOT))

from tests.roles import messages  # noqa: E402  # only importable from the repository's top directory
from tests.sinks.conftest import load  # noqa: E402

CHROMIUM = "chromium"
WIDE_PIXELS = 760
PHONE_PIXELS = 390
TALLEST_PIXELS = 1100


@dataclass(frozen=True)
class Variant:
    """How a message is looked at."""

    kind: str
    dark: bool = False
    phone: bool = False

    @property
    def suffix(self) -> str:
        """The end of the file's name."""
        return self.kind + ("-phone" if self.phone else "") + ("-dark" if self.dark else "")


EVERY_VARIANT = [
    Variant(kind, dark, phone) for kind in ("slack", "mail") for dark in (False, True) for phone in (False, True)
]


def chromium(*arguments: str) -> str:
    """Run Chromium with a profile of its own; return what it prints.

    Raises:
        SystemExit: there is no Chromium.
    """
    with tempfile.TemporaryDirectory() as profile:
        try:
            return subprocess.run(
                [
                    *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
                    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                    *(f"--user-data-dir={profile}", *arguments),
                ],
                check=True,
                capture_output=True,
                text=True,
                timeout=120,
            ).stdout
        except FileNotFoundError:
            raise SystemExit(f"there is no {CHROMIUM} on this machine; its package makes the pictures") from None


def height_of(page: Path, width: int, folder: Path) -> int:
    """Return how high a page is at a width, in pixels."""
    frame = folder / "frame.html"
    frame.write_text(
        f'<!doctype html><body style="margin:0"><iframe id="f" src="{page.as_uri()}" '
        f'style="width:{width}px;height:10px;border:0"></iframe>'
        "<script>addEventListener('load', () => { document.title = "
        "document.getElementById('f').contentDocument.documentElement.scrollHeight })</script>"
    )
    dom = chromium("--dump-dom", "--allow-file-access-from-files", frame.as_uri())
    found = re.search(r"<title>(\d+)</title>", dom)
    return min(int(found[1]) if found else TALLEST_PIXELS, TALLEST_PIXELS)


def draw(page: Path, picture: Path, variant: Variant, folder: Path) -> None:
    """Draw a page into a picture."""
    width = PHONE_PIXELS if variant.phone else WIDE_PIXELS
    height = height_of(page, width, folder)
    # A window is never as narrow as a phone; a frame can be.
    frame = folder / "frame.html"
    frame.write_text(
        f'<!doctype html><body style="margin:0;background:{"#0d1117" if variant.dark else "#f3f4f6"}">'
        f'<iframe src="{page.as_uri()}" '
        f'style="display:block;margin:auto;width:{width}px;height:{height}px;border:0"></iframe>'
    )
    chromium(
        f"--blink-settings=preferredColorScheme={0 if variant.dark else 1}",
        f"--window-size={max(width, 500)},{height}",
        f"--screenshot={picture}",
        frame.as_uri(),
    )


def slack_page(material: Path) -> str:
    """Return a Slack message as a page."""
    kept = json.loads(material.read_text())
    sinks = load("allin_sinks")
    message = {
        "id": 1,
        "kind": "slack",
        "received": "2026-03-14T03:07:36Z",
        "username": kept["from"],
        "channel": "#on-call",
        "attachments": [kept["attachment"]],
    }
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><style>{sinks.STYLE} body{{margin:0;padding:10px}}'
        f" article{{margin:0 !important}}</style><body>{sinks.slack_card(message)}</body></html>"
    )


def wanted(name: str) -> list[Variant]:
    """Return the variants that the document shows of an example."""
    found = [Variant("slack"), Variant("mail")]
    if name == messages.slug_of("One alert"):
        found += [Variant("slack", dark=True), Variant("mail", dark=True, phone=True)]
    return found


def main() -> None:
    """Make all pictures."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        messages.write(folder)
        for material in sorted(folder.glob("*.json")):
            pages = {"slack": folder / f"{material.stem}-slack.html", "mail": material.with_suffix(".html")}
            pages["slack"].write_text(slack_page(material))
            for variant in EVERY_VARIANT if target != PICTURES else wanted(material.stem):
                picture = target / f"message-{material.stem}-{variant.suffix}.png"
                draw(pages[variant.kind], picture, variant, folder)
                print(picture)


if __name__ == "__main__":
    main()
