"""Every text of the page, and how attributes are grouped on it."""

TITLE = "weights2weights studio"
INTRO = "Every point of this space is a person who can be drawn in any scene. Move one."
TOUR = "The tour, in 60 seconds"
TOUR_STEPS = """
1. **New person** draws somebody who does not exist. The number below is the seed: the same seed,
   the same person. **From a photo** is under *Person*.
2. Under **Attributes**, drag a slider. You get a draft at once, then the full image.
   Numbers count standard deviations: ±1 is visible, ±3 is extreme.
3. Tick **keep** next to what must not change: the other sliders then leave it alone.
4. **Undo**, **Redo** and the strip below the image take you back; a change from there is a branch.
5. **Take home** gives you the model as a LoRA, the image, and the lines that repeat it.
"""
PICTURE, STRIP, NAME = "The person", "History: click an image to return to it", "Name of this state"
NEW, UNDO, REDO, BRANCH = "New person", "Undo", "Redo", "Branch from here"
SEED_PERSON, LOCK_PERSON = "Seed of the person", "lock: new people keep this seed"
ATTRIBUTES, SEARCH, KEEP = "Attributes", "Search attributes", "keep"
RESET, RANDOMISE = "Reset attributes", "Randomise"
MOVES, MOVES_EMPTY = "What else moves with", "Drag a slider to see what else it moves."
SCENE, PROMPT, SCENES = "Scene", "Prompt", "Examples"
SEED, ADVANCED, STEPS, GUIDANCE = "Seed of the image", "Advanced", "Steps", "Guidance"
KEEP_SCENE = "Keep the scene"
KEEP_SCENE_INFO = (
    "0 edits the whole image; 0.5 lays it out with the person as it was before the edit."
)
PERSON, PHOTO, FIND = "Person", "From a photo", "Find this person"
PHOTO_INFO = "Crop the photo to the face. Paint over the person to leave out what is around it."
CONSENT = "The person on this photo agreed to this, or it is me. The photo is deleted when I leave."
NEED_CONSENT = "Please confirm that the person on the photo agrees."
NEED_PHOTO = "Please add a photo first."
LORA, GALLERY, HAVING, SHOW = "From a LoRA file", "From the space", "who have", "Show people"
MIX, SECOND, SHARE = "Mix two people", "Use this person as the second", "Share of the second"
COMPARE, BEFORE_AFTER, SEEDS = "Compare", "Before and after", "Six seeds"
GRID, OTHER_PROMPTS = "Seeds × prompts", "Prompts for the grid, one per line"
MAP, ACROSS, UP, SHOW_MAP = "Map", "across", "up", "Show the map"
MAP_INFO = "Every dot is a training model, the ring is this person. Click anywhere to go there."
TAKE, FORMAT, MAKE, FILES = "Take home", "LoRA format", "Make the files", "Files"
COMMANDS, PYTHON, LINK = "Commands", "Python", "Link to this state"
NO_LINK = "Too long for a link: use the recipe file."
RESTORE = "Restore a recipe or an image"
DRAFT, BUSY, SEARCHING = "draft", "about {:.0f} s wait", "searching, about {:.0f} s left"
RELIABLE = "AUC {:.2f} · safe {:+.1f} to {:+.1f}"
NUMBERS = "R² {:.2f} · safe {:+.1f} to {:+.1f}"
SCENE_PROMPTS = (
    "a photo of sks person",
    "a photo of sks person, in a forest",
    "a photo of sks person, on a beach",
    "a photo of sks person, in the snow",
    "a photo of sks person, at night",
)
GROUPS = {
    "Person": ("male", "young", "skin", "chubby", "attractive"),
    "Hair": ("hair", "bald", "bangs"),
    "Beard": ("beard", "goatee", "shadow", "mustache", "sideburns"),
    "Worn": ("wearing", "eyeglasses"),
    "Face": ("nose", "lips", "eye", "jaw", "cheek", "freckle", "brow", "face", "chin", "mouth"),
}
"""Group → parts of the names of its attributes; the first that fits decides."""
REST = "More"


def group_of(label: str) -> str:
    """Return the group of an attribute."""
    word = label.lower()
    fits = (group for group, parts in GROUPS.items() if any(part in word for part in parts))
    return next(fits, REST)


def rank_of(label: str) -> int:
    """Return the place of an attribute's group on the page."""
    return [*GROUPS, REST].index(group_of(label))
