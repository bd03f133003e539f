"""What differs between kinds of base, as one small interface; each family is a file of its own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from ._conditions import Conditions
from ._diffusion import Diffusion, Flow


class Family(ABC):
    """One kind of base, around the parts of one.

    Attributes:
        pipeline: name of its class in diffusers, as `model_index.json` has it.
        classes: subfolder of each part but the scheduler → name of its class; first the denoiser,
            then the VAE, the text encoders and their tokenizers.
        large: parts whose weights are in the base's dtype; all others are float32.
        preset: of its training, in `training.PRESETS`.
        steps: of sampling, unless others are asked for.
        guidance: scale, unless another is asked for.
        reads_guidance: the denoiser takes the scale as an input, and there is no negative prompt.
        parts: networks and tokenizers, by the names of their subfolders.
    """

    pipeline: ClassVar[str]
    classes: ClassVar[Mapping[str, str]]
    large: ClassVar[Sequence[str]]
    preset: ClassVar[str]
    steps: int
    guidance: float
    reads_guidance: bool = False

    def __init__(self, parts: Mapping[str, Any]):
        self.parts = dict(parts)

    @classmethod
    def networks(cls) -> list[str]:
        """Return the names of the parts that have weights, the denoiser first."""
        return [name for name in cls.classes if not name.startswith("tokenizer")]

    @property
    def denoiser(self) -> Any:
        """The network that predicts the noise."""
        return self.parts[next(iter(self.classes))]

    @property
    def side(self) -> int:
        """Height and width of the latent of one image, unless the base was given another size."""
        return self.denoiser.config.sample_size

    @property
    def factor(self) -> int:
        """Number of pixels along a side of a latent pixel."""
        return 2 ** (len(self.parts["vae"].config.block_out_channels) - 1)

    @property
    def channels(self) -> int:
        """Number of channels of a latent."""
        return self.denoiser.config.in_channels

    @property
    def patch(self) -> int:
        """Side of a token of the denoiser in latent pixels."""
        return 1

    @property
    def width(self) -> int:
        """Width of the denoiser's activations for one token, at the first level of a UNet."""
        config = self.denoiser.config
        return config.num_attention_heads * config.attention_head_dim

    def fault(self, settings: dict[str, Any]) -> str:
        """Say why parts and the scheduler's settings cannot be a base; nothing if they can."""
        pairs = [("latent channels", self.channels, self.parts["vae"].config.latent_channels)]
        for what, ours, theirs in [*pairs, *self.widths()]:
            if ours != theirs:
                return (
                    f"does not fit together: the denoiser expects {what} {ours}, its partner gives"
                    f" {theirs}; expected the parts of one plain text-to-image {self.pipeline}"
                )
        return ""

    def widths(self) -> list[tuple[str, int, int]]:
        """Return (what, of the denoiser, of the text encoders) that must be equal."""
        return []

    @abstractmethod
    def process(self, settings: dict[str, Any]) -> Diffusion | Flow:
        """Return the forward process that the scheduler's settings describe."""

    @abstractmethod
    def encode(self, prompts: Sequence[str], device: Any) -> Conditions:
        """Encode prompts with text encoders that are on a device."""

    def negative(self, conditions: Conditions, prompt: str) -> Conditions:
        """Return what guidance leads away from, given the encoded negative prompt."""
        return conditions

    @abstractmethod
    def predict(
        self, noisy: Tensor, times: Tensor, conditions: Conditions, guidance: float
    ) -> Tensor:
        """Run the denoiser on noisy latents "n c h w" and return its prediction of that shape."""

    def encoded_by_pipeline(self, prompts: Sequence[str], **options: Any) -> tuple[Any, ...]:
        """Encode prompts as the family's own pipeline does."""
        import diffusers

        # the pipeline is made of the parts at hand, for this one method; it loads nothing
        pipeline: Any = getattr(diffusers, self.pipeline)(**self.parts, scheduler=None)
        return pipeline.encode_prompt(list(prompts), prompt_2=None, **options)
