"""Pictures of every mode and format: each shows what a viewer shows, or is refused by its name and reason."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from resque.data.loading import load_data
from resque.data.readers.images import image_to_array, open_image, stack_images
from resque.errors import DataError

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (6, 5), dtype=np.uint8)
COLOR = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)


def encoded(image, suffix, **options):
    stream = io.BytesIO()
    image.save(stream, suffix, **options)
    stream.seek(0)
    return stream


def shown(file):
    """The values of a picture as shares of white, ``(h, w, c)``; no warning may be left over."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        array = open_image(file)
    return array / 255.0 if array.dtype == np.uint8 else array


@given(
    white=st.sampled_from([65535, 4095, 255, 1]),
    suffix=st.sampled_from(["PNG", "TIFF", "PPM"]),
    seed=st.integers(0, 99),
    byte_order=st.sampled_from(["<u2", ">u2"]),
)
@settings(max_examples=30)
def test_16_bit_pictures_are_shares_of_65535(white, suffix, seed, byte_order):
    values = np.random.default_rng(seed).integers(0, white + 1, (4, 3)).astype(byte_order)
    image = Image.frombytes("I;16B" if byte_order == ">u2" else "I;16", (3, 4), values.tobytes())
    if suffix != "TIFF":
        image = Image.fromarray(values.astype("<u2"))
    found = shown(encoded(image, suffix))[:, :, 0]
    np.testing.assert_allclose(found, values.astype(float) / 65535, atol=1e-6)


@pytest.mark.parametrize("mode", ["I", "F"])
@pytest.mark.parametrize("values", [GRAY * 1000.0, GRAY * 1.0, GRAY - 300.0])
def test_pictures_without_a_white_level_are_refused_by_name(folder, mode, values):
    place = folder / "set" / "a"
    place.mkdir(parents=True)
    Image.fromarray(values.astype(np.int32 if mode == "I" else np.float32)).save(place / "deep.tif")
    with pytest.raises(DataError, match=r"set/a/deep\.tif .*(32-bit|floats).*expected"):
        load_data("folder:set")


@pytest.mark.parametrize("spoiled", [np.nan, np.inf, -0.1, 1.1])
def test_float_pictures_are_shares_of_white_already(spoiled):
    values = (GRAY / 255).astype(np.float32)
    np.testing.assert_allclose(shown(encoded(Image.fromarray(values), "TIFF"))[:, :, 0], values)
    values[2, 1] = spoiled
    with pytest.raises(DataError, match=r"floats from .*expected \[0, 1\]"):
        open_image(encoded(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("mode", ["I;16", "L", "1"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_tiff_knows_whether_zero_is_white(mode, photometric):
    values = GRAY // 128 * 255 if mode == "1" else GRAY
    stored = values if photometric else 255 - values
    image = Image.fromarray(stored.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(stored)
    stream = encoded(image.convert("1") if mode == "1" else image, "TIFF", tiffinfo={262: photometric})
    if mode != "I;16" and photometric == 0:  # Pillow writes 8 bits inverted by itself
        values = np.asarray(Image.open(stream).convert("L"))
    np.testing.assert_allclose(shown(stream)[:, :, 0], values / 255, atol=1e-6)


@pytest.mark.parametrize("suffix", ["PNG", "TIFF", "BMP", "GIF"])
def test_black_and_white_becomes_0_and_1(suffix):
    bits = GRAY > 128
    found = shown(encoded(Image.fromarray(bits), suffix))
    np.testing.assert_array_equal(found[:, :, 0], bits)


@pytest.mark.parametrize("suffix", ["PNG", "TIFF", "BMP", "GIF"])
def test_palettes_show_their_colors(suffix):
    image = Image.fromarray(COLOR).quantize(16)
    np.testing.assert_array_equal(shown(encoded(image, suffix)), np.asarray(image.convert("RGB")) / 255)


def transparent(mode, opaque):
    """A picture with an alpha channel, or with a transparent color; and its colors."""
    alpha = np.full(GRAY.shape, 255, np.uint8)
    alpha[1, 2] = 255 if opaque else 128
    if mode in ("LA", "RGBA"):
        colors = GRAY[:, :, None] if mode == "LA" else COLOR
        return Image.fromarray(np.concatenate([colors, alpha[:, :, None]], axis=2)), {}, colors
    if mode == "P":
        image = Image.fromarray(COLOR).quantize(16)
        return image, {"transparency": bytes([255] * 16 if opaque else [255, 0] * 8)}, np.asarray(image.convert("RGB"))
    values = np.full(GRAY.shape, 7, np.uint8)
    values[1, 2] = 9
    key = 100 if opaque else 9
    if mode == "RGB":
        return Image.fromarray(values).convert("RGB"), {"transparency": (key,) * 3}, values[:, :, None].repeat(3, 2)
    if mode == "I;16":
        return Image.fromarray(values.astype(np.uint16) * 257), {"transparency": key * 257}, values[:, :, None]
    return Image.fromarray(values), {"transparency": key}, values[:, :, None]


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "L", "RGB", "I;16"])
def test_transparent_pictures_are_refused_and_opaque_ones_are_shown(mode):
    image, options, colors = transparent(mode, opaque=True)
    np.testing.assert_allclose(shown(encoded(image, "PNG", **options)), colors / 255, atol=1e-6)
    image, options, _ = transparent(mode, opaque=False)
    with pytest.raises(DataError, match=r"transparent pixels.*without a background"):
        open_image(encoded(image, "PNG", **options))


def png(pixels, depth, key=None):
    """A PNG of gray or color pixels of 1 to 16 bits, as its format says, with a transparent color."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = pixels.shape[:2]
    bits = (pixels.reshape(height, -1)[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
    rows = np.packbits(bits.reshape(height, -1).astype(bool), axis=1)
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, depth, 2 * (pixels.ndim == 3), 0, 0, 0)
    trns = b"" if key is None else chunk(b"tRNS", np.atleast_1d(key).astype(">u2").tobytes())
    return io.BytesIO(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + trns + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    )


@given(
    kind=st.sampled_from([(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (8, 3), (16, 3)]),
    seed=st.integers(0, 99),
    present=st.booleans(),
)
@settings(max_examples=80)
def test_a_transparent_color_of_any_depth_is_found(kind, seed, present):
    depth, channels = kind
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 2**depth, (5, 7) if channels == 1 else (5, 7, 3))
    if not present:
        pixels[pixels == 0] = 2**depth - 1
    key = pixels[random.integers(5), random.integers(7)] if present else np.zeros(channels, int)
    if not present and depth == 16 and channels == 3:
        pixels[pixels < 256] = 256  # Pillow keeps the upper 8 bits alone
    if present:
        with pytest.raises(DataError, match="transparent pixels"):
            open_image(png(pixels, depth, key))
    else:
        values = pixels / (2**depth - 1)
        found = shown(png(pixels, depth, key))
        np.testing.assert_allclose(found, values[:, :, None] if channels == 1 else values, atol=1 / 255)


@pytest.mark.parametrize("signed", [np.int8, np.int16, np.int32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("low", [0, -100])
def test_signed_integers_are_refused(signed, channels, low):
    values = RNG.integers(low, 100, (6, 5) if channels == 1 else (6, 5, 3)).astype(signed)
    with pytest.raises(DataError, match="white level|no image"):
        open_image(tiff(values, sample_format=2))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_file_of_unsigned_integers_is_read(channels):
    values = GRAY if channels == 1 else COLOR
    np.testing.assert_allclose(shown(tiff(values, 1)), values.reshape(6, 5, channels) / 255)


def tiff(values, sample_format):
    """A TIFF of one strip, whose tags say how its numbers are meant."""
    height, width, *more = values.shape
    channels, bits = (more or [1])[0], values.dtype.itemsize * 8
    place = 8 + 2 + 12 * 10 + 4
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 2 if channels == 3 else 1, 273: place + 12, 277: channels,
            278: height, 279: values.nbytes, 339: sample_format}  # fmt: skip
    entries, outside = b"", b""
    for tag, value in tags.items():
        if channels == 3 and tag in (258, 339):
            entries += struct.pack("<HHII", tag, 3, 3, place + len(outside))
            outside += struct.pack("<HHH", *[value] * 3)
        else:
            entries += struct.pack("<HHII", tag, 4, 1, value)
    return io.BytesIO(
        struct.pack("<2sHIH", b"II", 42, 8, len(tags))
        + entries
        + bytes(4)
        + outside.ljust(12, b"\0")
        + values.tobytes()
    )


@pytest.mark.parametrize("suffix", ["TIFF", "JPEG"])
def test_cmyk_becomes_rgb(suffix):
    flat = np.zeros((16, 16, 3), np.uint8) + np.array([200, 30, 90], np.uint8)
    found = shown(encoded(Image.fromarray(flat).convert("CMYK"), suffix))
    np.testing.assert_allclose(found, flat / 255, atol=0.02)


def test_lab_becomes_rgb():
    flat = np.zeros((8, 8, 3), np.uint8) + np.array([200, 30, 90], np.uint8)
    spaces = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.applyTransform(Image.fromarray(flat), ImageCms.buildTransform(*spaces, "RGB", "LAB"))
    np.testing.assert_allclose(shown(encoded(lab, "TIFF")), flat / 255, atol=0.02)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation, suffix):
    upright = np.zeros((32, 16), np.uint8)
    upright[:8, :4], upright[-8:, :4] = 250, 120  # no symmetry
    turn = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.T, 6: lambda a: np.rot90(a), 7: lambda a: a[::-1, ::-1].T, 8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turn[orientation](upright))).convert("RGB")
    found = shown(encoded(stored, suffix, exif=exif, **({"quality": 100} if suffix in ("JPEG", "WEBP") else {})))
    assert found.shape == (32, 16, 3)
    np.testing.assert_allclose(found[:, :, 0], upright / 255, atol=0.15)


@pytest.mark.parametrize("suffix", ["PNG", "TIFF"])
def test_deep_pictures_are_turned_too(suffix):
    values = np.arange(6, dtype=np.uint16).reshape(2, 3) * 9000
    exif = Image.Exif()
    exif[274] = 6
    found = shown(encoded(Image.fromarray(np.ascontiguousarray(np.rot90(values))), suffix, exif=exif))
    np.testing.assert_allclose(found[:, :, 0], values / 65535, atol=1e-6)


@pytest.mark.parametrize("suffix", ["GIF", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("n", [2, 5])
def test_pictures_that_move_are_refused_by_name(folder, suffix, n):
    place = folder / "set" / "a"
    place.mkdir(parents=True)
    frames = [Image.fromarray(np.roll(COLOR, i, 0)) for i in range(n)]
    frames[0].save(place / f"many.{suffix.lower()}", suffix, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=rf"many\.{suffix.lower()} .*several frames; expected one"):
        load_data("folder:set")


def test_the_picture_of_a_camera_that_adds_a_preview_is_its_first():
    flat = Image.new("RGB", (32, 32), (200, 200, 200))
    both = encoded(flat, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    np.testing.assert_allclose(shown(both), 200 / 255, atol=0.02)


def test_gray_deep_and_color_pictures_become_one_kind():
    deep = open_image(encoded(Image.fromarray(GRAY.astype(np.uint16) * 257), "PNG"))
    plain = open_image(encoded(Image.fromarray(COLOR), "PNG"))
    for images in ([deep, plain], [plain, deep]):
        stacked = stack_images(images)
        assert (stacked.shape, stacked.dtype) == ((2, 6, 5, 3), np.float32)
        at = next(i for i, image in enumerate(images) if image is plain)
        np.testing.assert_allclose(stacked[at], COLOR / 255, atol=1e-6)
        np.testing.assert_allclose(stacked[1 - at][:, :, 2], GRAY / 255, atol=1e-6)


def test_a_folder_of_deep_pictures_of_several_sizes_keeps_their_depth(folder):
    for i, side in enumerate((8, 12, 8)):
        place = folder / "set" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((side, side), 1000 + i, np.uint16)).save(place / f"{i}.png")
    with pytest.warns(match="numbered"):
        data = load_data("folder:set@6px")
    found = sorted(data.inputs.mean(dim=(1, 2, 3)).tolist())
    np.testing.assert_allclose(found, [1000 / 65535, 1001 / 65535, 1002 / 65535], rtol=1e-5)


@given(damage=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=40), data=st.data())
@settings(max_examples=120)
def test_a_damaged_file_is_a_picture_or_one_line(damage, data):
    suffix = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]))
    exif = Image.Exif()
    exif[274] = 6
    options = {"exif": exif} if suffix in ("PNG", "JPEG", "WEBP", "TIFF") else {}
    content = bytearray(encoded(Image.fromarray(COLOR), suffix, **options).getvalue())
    for place, value in damage:
        content[place % len(content)] = value
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    try:
        array = open_image(io.BytesIO(bytes(content)))
    except DataError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert array.ndim == 3
        assert array.shape[2] in (1, 3)
    assert "\n" not in refusal


def test_text_in_a_picture_changes_nothing():
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 500, zip=True)
    np.testing.assert_array_equal(shown(encoded(Image.fromarray(COLOR), "PNG", pnginfo=info)), COLOR / 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV"])
def test_pictures_in_memory_have_one_channel_or_three(mode):
    array = image_to_array(Image.new(mode, (5, 4)))
    assert array.shape == (4, 5, 1 if mode in ("1", "L") else 3)
