"""The tiny pipeline is what other tests take it for: deterministic, and whole."""

import torch

import tiny


def test_networks_are_deterministic_and_leave_the_global_random_state_alone():
    before = torch.get_rng_state()
    first, second, other = tiny.unet(0), tiny.unet(0), tiny.unet(1)
    assert torch.equal(torch.get_rng_state(), before)
    inputs = tiny.unet_inputs(2)
    assert torch.equal(first(*inputs).sample, second(*inputs).sample)
    assert not torch.equal(first(*inputs).sample, other(*inputs).sample)


def test_unet_has_the_block_names_of_stable_diffusion(tiny_unet):
    blocks = {name.split(".")[0] for name, _ in tiny_unet.named_modules() if name.endswith("to_q")}
    assert blocks == {"down_blocks", "mid_block", "up_blocks"}


def test_the_folder_opens_as_a_pipeline_and_draws(tiny_base):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(tiny_base)
    pipe.set_progress_bar_config(disable=True)
    images = pipe("sks person", num_inference_steps=1, output_type="np").images
    assert images.shape == (1, 16, 16, 3)
    assert pipe.tokenizer.decode(pipe.tokenizer("a bald man!").input_ids[1:-1]) == "a bald man !"
