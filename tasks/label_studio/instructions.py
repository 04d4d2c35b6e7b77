"""What labellers are told: the order of the points, what is occluded, and the keys of the labelling screen.

The rules are those that TAO's documentation gives for labelling: keypoints in order and as exact as can be, zoomed
in; best estimates where a point can't be told apart; occluded if an object or an extreme pose hides it; the same
order and the same instructions for everybody.
"""

from __future__ import annotations

from pathlib import Path
from string import Template

from schemas.label_studio_config import point_groups
from schemas.layouts import layout

_ORDER = {
    0: "along the jaw, from the ear at the left of the picture down to the chin and up to the ear at the right",
    17: "the left brow from left to right, then the right brow from left to right",
    27: "four points down the ridge to the tip, then five below the nose from left to right",
    36: "the left eye clockwise from its left corner, then the right eye likewise",
    48: "the outer edge of the lips clockwise from the left corner (12 points), then the inner edge likewise (8)",
    68: "left, top, right and bottom of the left pupil, then of the right one",
    76: "top and lobe of the left ear, then of the right one",
    80: "at the left eye three points of the lower lid from right to left, seven of the fold above from left to "
    "right, and the tear duct; the same at the right eye; then the centres of the left and the right pupil",
}
"""First index of a group -> how its points follow each other; left and right are those of the picture."""

_KEYS = (
    ("b", "face box"),
    ("1 to 9, 0", "P1 to P10; more keys stand beside the labels"),
    ("f, the number, Enter", "any point"),
    ("Ctrl + click", "place a point inside of the face box"),
    ("o", "the selected point is occluded, or is not"),
    ("Backspace", "delete what is selected"),
    ("Ctrl + Enter", "submit"),
)


def labelling_instructions(num_keypoints: int) -> str:
    """HTML for the project's labelling instructions, of tags that Label Studio lets through as they are."""
    order = _ORDER if layout(num_keypoints).is_face else {}
    groups = [
        f"<li>• <b>{title}</b>: {order.get(indices[0], 'in the order that your team has agreed on')}</li>"
        for title, indices, _ in point_groups(num_keypoints)
    ]
    keys = [f"<li>• <b>{key}</b>: {meaning}</li>" for key, meaning in _KEYS]
    # The bullets are part of the text: the screen that shows it draws none.
    page = Path(__file__).with_name("instructions.html").read_text(encoding="utf-8")
    text = Template(page).substitute(count=num_keypoints, groups="\n".join(groups), keys="\n".join(keys))
    return text.strip()
