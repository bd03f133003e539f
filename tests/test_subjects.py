"""Images and masks of any kind end in one form, or in one line that says why not."""

import os
import sys
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from weights2weights import images, subjects
from weights2weights.errors import W2WError
from weights2weights.images import decode_image, decode_mask, square
from weights2weights.subjects import (
    Subject,
    find_subjects,
    read_images,
)


def drawing(width=32, height=32, seed=0, mode="RGB") -> Image.Image:
    """A smooth image, which survives JPEG and resizing."""
    generator = np.random.default_rng(seed)
    corners = Image.fromarray(generator.integers(0, 256, (3, 3, 3), dtype=np.uint8))
    return corners.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    for name in ("eve", "adam"):
        (tmp_path / "people" / name).mkdir(parents=True)
        for i in range(3):
            drawing(seed=i).save(tmp_path / "people" / name / f"{i}.png")
    return tmp_path / "people"


def read_one(folder, data: bytes, name="0.png", size=16) -> torch.Tensor:
    (folder / name).write_bytes(data)
    return read_images(Subject("x", (folder / name,), (None,)), size).pixels[0]


def difference(a, b) -> float:
    arrays = [x.numpy() if isinstance(x, torch.Tensor) else np.asarray(x) for x in (a, b)]
    return float(np.abs(arrays[0].astype(float) - arrays[1].astype(float)).max())


# Finding.


def test_subjects_are_found_in_order(folder):
    found = find_subjects(folder)
    assert [subject.name for subject in found] == ["adam", "eve"]
    assert [path.name for path in found[0].images] == ["0.png", "1.png", "2.png"]
    assert found[0].masks == (None, None, None)
    assert not found[0].problem


def test_other_files_and_hidden_ones_are_left_alone(folder):
    for stray in (".DS_Store", "Thumbs.db", "notes.txt", "._0.png"):
        (folder / "adam" / stray).write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / "grid.png").write_bytes(b"x")
    found = find_subjects(folder)
    assert [subject.name for subject in found] == ["adam", "eve"]
    assert len(found[0].images) == 3


def test_a_folder_of_images_is_one_subject(folder):
    (found,) = find_subjects(folder / "adam")
    assert found.name == "adam"
    assert len(found.images) == 3


def test_suffixes_of_any_case(folder):
    (folder / "adam" / "0.png").rename(folder / "adam" / "0.PNG")
    drawing().save(folder / "adam" / "3.JPeG")
    drawing().save(folder / "adam" / "4.WebP")
    assert len(find_subjects(folder)[0].images) == 5


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system composes names itself")
def test_one_name_in_two_spellings_is_a_problem_of_that_subject_alone(folder):
    (folder / "zoe\u0308").mkdir()
    (folder / "zo\u00eb").mkdir()
    *others, zoe = find_subjects(folder)
    assert zoe.name == "zo\u00eb"
    assert "2 folders have this name" in zoe.problem
    assert not any(subject.problem for subject in others)


def test_the_same_name_in_two_folders_is_a_problem_of_that_subject_alone(folder, tmp_path):
    (tmp_path / "more" / "eve").mkdir(parents=True)
    (tmp_path / "more" / "kain").mkdir()
    problems = {s.name: s.problem for s in find_subjects(folder, tmp_path / "more")}
    assert "2 folders have this name" in problems["eve"]
    assert not problems["adam"]


def test_names_with_spaces_and_of_any_script(tmp_path):
    for name in ("Ada L. #1", "ナオミ", "naïve 😀"):
        (tmp_path / name).mkdir()
        drawing().save(tmp_path / name / "a b.png")
    found = find_subjects(tmp_path)
    assert [subject.name for subject in found] == ["Ada L. #1", "naïve 😀", "ナオミ"]
    assert read_images(found[2], 16).pixels.shape == (1, 16, 16, 3)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names are text elsewhere")
def test_a_name_that_is_no_text_is_made_one(folder):
    os.mkdir(os.fsencode(folder) + b"/\xff")
    assert find_subjects(folder)[-1].name == "\ufffd"


def test_no_images_is_a_problem_that_says_what_was_there(folder):
    (folder / "kain").mkdir()
    (folder / "kain" / "0.heic").write_bytes(b"x")
    assert find_subjects(folder)[-1].problem == (
        "no images (there are files of .heic): expected PNG, JPEG or WebP"
    )


@pytest.mark.parametrize("missing", ["absent", "file", "empty"])
def test_no_subjects_at_all_is_an_error(tmp_path, missing):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        W2WError, match=r"is not a directory|no subjects in .*; expected one folder of"
    ):
        find_subjects(tmp_path / missing)


# Reading.


@pytest.mark.parametrize(
    ("format", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("JPEG", {"quality": 98, "subsampling": 0}, 6),
        ("WEBP", {"lossless": True}, 0),
    ],
)
def test_every_format_gives_the_same_pixels(tmp_path, format, options, tolerance):
    expected = read_one(tmp_path, encoded(drawing()))
    read = read_one(tmp_path, encoded(drawing(), format, **options), f"0.{format.lower()}")
    assert difference(read, expected) <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright_whatever_the_camera_did(orientation):
    upright = drawing(48, 32)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = decode_image(encoded(stored, exif=exif), "a.png")
    assert read.size == (48, 32)
    assert difference(read, upright) == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_lies_on_white(mode):
    image = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 16, 32))
    if mode == "PA":
        image = image.quantize(4)
    elif mode == "LA":
        image = image.convert("LA")
    read = np.asarray(decode_image(encoded(image), "a.png"))
    assert (read[:, 16:] == 255).all()
    assert (read[:, :16, 2] > read[:, :16, 0]).all() or mode == "LA"


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    image = drawing(mode=mode)
    read = decode_image(encoded(image, "JPEG" if mode == "CMYK" else "PNG"), "a")
    assert read.mode == "RGB"
    assert read.size == (32, 32)
    tolerance = 8 if mode == "CMYK" else 0
    assert difference(read, image.convert("RGB")) <= tolerance


def test_sixteen_bits_keep_their_range():
    levels = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    read = np.asarray(decode_image(encoded(Image.fromarray(levels)), "a.png"))
    assert (read == np.round(levels / 257).astype(np.uint8)[..., None]).all()
    mask = np.asarray(decode_mask(encoded(Image.fromarray(levels)), "a.png", (32, 32)))
    assert (mask == read[..., 0]).all()


@given(st.integers(16, 90), st.integers(16, 90), st.integers(8, 32))
def test_the_crop_is_the_centred_square(width, height, size):
    ramp = np.add.outer(np.arange(height), np.arange(width)).astype(np.float32)
    cut = square(Image.fromarray(ramp), size)
    assert cut.size == (size, size)
    assert np.asarray(cut).mean() == pytest.approx((width + height - 2) / 2, abs=1.5)


@pytest.mark.parametrize("shape", [(48, 32), (32, 48), (33, 64)])
def test_mask_and_image_are_cropped_alike(tmp_path, shape):
    """An image that is its own mask stays so through EXIF turns, crops and scaling."""
    image = drawing(*shape, mode="L").point(lambda level: 255 if level > 128 else 0)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "0.png").write_bytes(encoded(image, exif=exif))
    (tmp_path / "0.mask.png").write_bytes(encoded(image, exif=exif))
    (subject,) = find_subjects(tmp_path)
    assert [path.name for path in subject.masks if path] == ["0.mask.png"]
    read = read_images(subject, 16)
    assert read.masks is not None
    assert difference(read.masks[0] * 255, read.pixels[0, ..., 0]) < 1e-3
    assert read.masks.min() >= 0 and read.masks.max() <= 1


def test_images_without_a_mask_count_in_full_beside_masked_ones(folder):
    mask = Image.new("L", (32, 32))
    mask.paste(255, (0, 0, 32, 16))
    mask.save(folder / "adam" / "1.mask.png")
    masks = read_images(find_subjects(folder)[0], 16).masks
    assert masks is not None
    assert masks.mean((1, 2)).tolist() == pytest.approx([1, 0.5, 1], abs=0.01)
    assert read_images(find_subjects(folder)[1], 16).masks is None


def test_digest_tells_other_pixels_masks_and_sizes_apart(folder):
    adam, eve = find_subjects(folder)
    first = read_images(adam, 16).digest
    assert read_images(eve, 16).digest == first, "the same images under another name"
    assert read_images(adam, 32).digest != first
    drawing(seed=9).save(folder / "adam" / "0.png")
    second = read_images(adam, 16).digest
    Image.new("L", (32, 32), 255).save(folder / "adam" / "1.mask.png")
    third = read_images(find_subjects(folder)[0], 16).digest
    assert len({first, second, third}) == 3


# What cannot be read.


def bomb(side: int) -> bytes:
    """A PNG header that promises more pixels than anyone has memory for."""
    data = bytearray(encoded(Image.new("1", (16, 16))))
    data[16:24] = side.to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


def animated(format: str) -> bytes:
    frames = [drawing(seed=1), drawing(seed=2)]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an image"),
        (b"not an image at all", "not an image"),
        (encoded(drawing(), "GIF"), "not an image"),
        (encoded(drawing(200, 200))[:600], "damaged"),
        (bomb(12_000), "at most 100,000,000"),
        (bomb(50_000), "far too large"),
        (encoded(drawing(1, 1)), "at least 16 a side"),
        (encoded(drawing(15, 400)), "at least 16 a side"),
        (animated("PNG"), "animated"),
        (animated("WEBP"), "animated"),
    ],
)
def test_what_is_not_a_usable_image_is_one_line_that_names_the_file(folder, data, message):
    (folder / "adam" / "1.png").write_bytes(data)
    with pytest.raises(W2WError, match=message) as caught:
        read_images(find_subjects(folder)[0], 16)
    assert str(caught.value).startswith("1.png ")
    assert "\n" not in str(caught.value)


@given(st.data())
def test_damaged_files_give_an_image_or_one_line(data):
    format = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP"]))
    damaged = bytearray(encoded(drawing(), format))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    for broken in (bytes(damaged), bytes(damaged[:cut])):
        try:
            assert decode_image(broken, "a").mode == "RGB"
        except W2WError as error:
            assert "\n" not in str(error)


def test_a_file_that_cannot_be_opened_is_one_line(folder):
    (subject, _) = find_subjects(folder)
    (folder / "adam" / "1.png").unlink()
    with pytest.raises(W2WError, match=r"1\.png cannot be read: No such file"):
        read_images(subject, 16)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Image.new("L", (32, 30), 255), "32×30 px for an image of 32×32"),
        (Image.new("L", (32, 32), 0), "black within the centred square"),
    ],
)
def test_a_mask_that_does_not_fit_is_one_line(folder, mask, message):
    mask.save(folder / "adam" / "1.mask.png")
    with pytest.raises(W2WError, match=message):
        read_images(find_subjects(folder)[0], 16)


def test_a_mask_of_no_image_is_a_problem(folder):
    Image.new("L", (32, 32), 255).save(folder / "adam" / "7.mask.png")
    assert "7.mask.png is a mask without an image" in find_subjects(folder)[0].problem


def test_a_problem_is_raised_when_the_subject_is_read(folder):
    with pytest.raises(W2WError, match="said before"):
        read_images(Subject("x", problem="said before"), 16)


def test_large_images_are_refused_without_being_read(monkeypatch):
    monkeypatch.setattr(images, "MOST_PIXELS", 1000)
    with pytest.raises(W2WError, match="32×32 pixels: expected at most 1,000"):
        decode_image(encoded(drawing()), "a.png")


def test_captions_lie_beside_their_images(folder):
    eve = folder / "eve"
    (eve / "1.txt").write_bytes(b"\xef\xbb\xbfsmiling,\n on  a beach\n")
    (eve / "notes.txt").write_text("of no image", encoding="utf-8")
    before = read_images(find_subjects(folder)[0], 16).digest
    adam, subject = find_subjects(folder)
    assert read_images(adam, 16).captions == ("", "", "") and before == read_images(adam, 16).digest
    told = read_images(subject, 16)
    assert told.captions == ("", "smiling, on a beach", "")
    assert told.digest == before, "captions change no pixel"


def test_a_caption_in_bytes_is_refused(folder):
    (folder / "eve" / "2.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(W2WError, match=r"2\.txt is not a caption; expected UTF-8 text"):
        read_images(find_subjects(folder)[1], 16)


def test_a_caption_that_is_too_long_is_refused(folder):
    text = folder / "eve" / "2.txt"
    text.write_bytes(b"x" * subjects.MOST_CAPTION_BYTES)
    assert len(read_images(find_subjects(folder)[1], 16).captions[2]) == 4096
    text.write_bytes(b"x" * (subjects.MOST_CAPTION_BYTES + 100))
    with pytest.raises(W2WError, match=r"2\.txt is too long for a caption: over 4,096 bytes"):
        read_images(find_subjects(folder)[1], 16)


def test_a_caption_may_be_named_after_the_whole_name_of_its_image(folder):
    for name in ("0.png.txt", "1.png.txt", "1.txt", "2.jpg.txt"):
        (folder / "eve" / name).write_text(f"of {name}", encoding="utf-8")
    told = read_images(find_subjects(folder)[1], 16)
    assert told.captions == ("of 0.png.txt", "of 1.txt", "")
