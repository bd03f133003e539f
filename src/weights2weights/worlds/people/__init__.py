"""The embedded world: drawn people, with CelebA's attribute names as labels."""

from .. import World
from .captions import ATTRIBUTE_PROMPTS, SCENE_PROMPTS, caption, edit_prompt, surroundings
from .draw import draw, draw_scene
from .image import sample_image
from .traits import LABEL_NAMES, TIED, labels, sample_person

PEOPLE = World(
    name="people",
    class_noun="person",
    label_names=LABEL_NAMES,
    attribute_prompts=ATTRIBUTE_PROMPTS,
    edit_prompt=edit_prompt,
    tied=TIED,
    sample_subject=sample_person,
    sample_image=sample_image,
    draw=draw,
    caption=caption,
    surroundings=surroundings,
    labels=labels,
    scene_prompts=SCENE_PROMPTS,
    draw_scene=draw_scene,
    focus=(0.19, 0.25, 0.81, 0.875),
)
