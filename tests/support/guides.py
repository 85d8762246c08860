"""The texts of the guides, and the example programs in them."""

import re

from app.api.guides import FOLDER, ORDER

TEXTS = {name: (FOLDER / f"{name}.md").read_text() for name in ORDER}
_EXAMPLE = re.compile(r"<!-- example: (?P<name>\S+) -->\n```\w+\n(?P<code>.*?)```", re.DOTALL)
EXAMPLES = {found["name"]: found["code"] for text in TEXTS.values() for found in _EXAMPLE.finditer(text)}
