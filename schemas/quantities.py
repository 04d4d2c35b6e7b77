"""Numbers that several specs ask for, with their bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.layouts import MAX_KEYPOINTS

Share = Annotated[float, Field(ge=0, le=1)]
"""Of a whole; a probability, too."""

BoxEnlargeRatio = Annotated[float, Field(ge=1.0, le=3.0)]
"""Side of the network's crop over that of the face box."""

KeypointCount = Annotated[int, Field(gt=0, le=MAX_KEYPOINTS)]
