"""The inference chain: picture + speech -> head poses -> keypoints -> frames -> video."""
