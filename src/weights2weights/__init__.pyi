# The contents page, in the order in which data flows; names are imported on first use.

# Errors: all that a caller may want to catch.
from .errors import InputError as InputError
from .errors import ResourceError as ResourceError
from .errors import W2WError as W2WError

# What a LoRA's weight vector is, and many LoRAs on one denoiser.
from .layout import LoRAModule as LoRAModule
from .layout import WeightLayout as WeightLayout
from .adapter import Adapter as Adapter
from .adapter import adapt as adapt

# A base model, and images of subjects.
from .bases import Base as Base
from .bases import load_base as load_base
from .subjects import Subject as Subject
from .subjects import find_subjects as find_subjects
from .labels import read_labels as read_labels

# Images -> LoRAs -> a dataset of LoRAs.
from .training import DreamBoothConfig as DreamBoothConfig
from .training import train as train
from .dataset import WeightDataset as WeightDataset
from .dataset import import_loras as import_loras

# A dataset -> a space.
from .space import UpdateSpace as UpdateSpace
from .space import WeightSpace as WeightSpace
from .space import fit_updates as fit_updates
from .updates import read_updates as read_updates
from .published import import_published as import_published
from .published import import_published_dataset as import_published_dataset
from .pca import PCA as PCA
from .pca import fit_pca as fit_pca

# Points of the space: samples, edits along directions, inversions of images.
from .evaluate import report_samples as report_samples
from .sampling import sample as sample
from .directions import Direction as Direction
from .directions import direction_between as direction_between
from .directions import direction_from_scores as direction_from_scores
from .directions import edit as edit
from .directions import find_direction as find_direction
from .directions import find_directions as find_directions
from .scoring import score_models as score_models
from .scoring import traverse as traverse
from .inversion import Inversion as Inversion
from .inversion import InversionConfig as InversionConfig
from .inversion import invert as invert
from .merging import interpolate as interpolate
from .merging import merge as merge

# Points, weights, models and files -> images.
from .generation import generate as generate
from .generation import generate_each as generate_each
from .sheets import image_grid as image_grid

# Models and LoRA files, in and out.
from .models import Model as Model
from .models import load_model as load_model
from .models import save_model as save_model
from .opening import load_models as load_models
from .formats import LoRAFile as LoRAFile
from .formats import load_lora as load_lora
from .exports import load_into as load_into
from .exports import save_lora as save_lora
from .inspection import info as info
from .inspection import verify as verify

# Studies of which method people prefer.
from .study import analyse_study as analyse_study
from .study import make_study as make_study

# Judges of images, and whatever else is best used by its own name.
from . import metrics as metrics

__version__: str
