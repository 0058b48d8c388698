# tests/runtime/python/transformers_masks_test.py: masks in words against transformers' own masks
import itertools
import unittest
from typing import Any

try:
    import torch
    import transformers
except ImportError:
    transformers = None
else:
    from attnrt import _transformers_masks
    from transformers import masking_utils

BATCH = 3


def expanded(words: Any, queries: int, keys: int) -> Any:
    """Writes words out as a boolean mask, by the definitions in attnrt.attention's docstring."""
    visible = torch.zeros((BATCH, 1, queries, keys), dtype=torch.bool)
    for b, i, j in itertools.product(range(BATCH), range(queries), range(keys)):
        length = keys if words.kv_lengths is None else int(words.kv_lengths[b])
        diagonal = i + (length - queries if words.align == "bottom_right" else 0)
        visible[b, 0, i, j] = (
            j < length
            and not (words.causal and j > diagonal)
            and not (words.window_left is not None and j < diagonal - words.window_left)
            and not (words.window_right is not None and j > diagonal + words.window_right)
        )
    return visible if words.mask is None else visible & words.mask


def paddings(seen: int) -> dict[str, Any]:
    """Padding masks [batch, seen], as tokenizers make them."""
    real = torch.ones((BATCH, seen), dtype=torch.bool)
    left, right, holes = real.clone(), real.clone(), real.clone()
    left[0, : seen // 3] = right[0, -(seen // 3) or seen :] = holes[1, seen // 2] = False
    right[2, 1:] = False
    return {"none": None, "real": real, "left": left, "right": right, "holes": holes}


class Masks(unittest.TestCase):
    def setUp(self) -> None:
        if transformers is None:
            self.skipTest("torch and transformers are not installed")

    def patterns(self) -> dict[str, Any]:
        return {
            "causal": masking_utils.causal_mask_function,
            "full": masking_utils.bidirectional_mask_function,
            "window": masking_utils.sliding_window_causal_mask_function(3),
            "wide window": masking_utils.sliding_window_causal_mask_function(100),
            "full window": masking_utils.sliding_window_bidirectional_mask_function(2),
            "chunks": masking_utils.chunked_causal_mask_function(
                3, torch.zeros(BATCH, dtype=torch.int64)
            ),
        }

    def check(self, none: Any, words: dict[str, Any], causal: bool) -> str:
        """Compares one mask with that of "sdpa". Returns what it was: none, words or tensor."""
        queries, keys = words["q_length"], words["kv_length"]
        skip = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        expected = masking_utils.sdpa_mask(batch_size=BATCH, **{**words, **skip})
        mask = _transformers_masks.mask_in_words(batch_size=BATCH, **words)
        if mask is None:
            self.assertTrue(none, "None, which was not allowed")
            said = _transformers_masks.Words(causal=causal and queries > 1)
            self.assertTrue(torch.equal(expanded(said, queries, keys), expected))
            return "none"
        self.assertEqual(tuple(mask.shape), (BATCH, 1, queries, keys))
        self.assertEqual((mask.dtype, mask.dim()), (torch.bool, 4))
        self.assertTrue(torch.equal(mask & True, expected))  # as a model would see it
        said = getattr(mask, "attnrt_words", None)
        if said is None:
            return "tensor"
        self.assertTrue(torch.equal(expanded(said, queries, keys), expected), str(said))
        return "words" if said.mask is None else "words and tensor"

    def test_a_grid(self) -> None:
        found: dict[tuple[str, str, str], str] = {}
        sizes = {
            # q_length, kv_length, q_offset, kv_offset
            "prefill": (7, 7, 0, 0),
            "prefill into a static cache": (7, 12, 0, 0),
            "more tokens": (4, 9, 5, 0),
            "more tokens in a static cache": (4, 12, torch.tensor(5), 0),
            "decode": (1, 9, 8, 0),
            "decode in a static cache": (1, 12, torch.tensor(8), 0),
            "decode in a full window": (1, 3, 8, 6),
            "decode in a window that fills": (1, 5, 3, 0),
            "more tokens in a full window": (4, 6, 8, 6),
            "one token": (1, 1, 0, 0),
        }
        for (size, lengths), (pattern, function), allowed in itertools.product(
            sizes.items(), self.patterns().items(), (True, False)
        ):
            queries, keys, shift, offset = lengths
            for padding, mask in paddings(int(shift) + queries).items():
                words = {
                    "q_length": queries, "kv_length": keys, "q_offset": shift, "kv_offset": offset,
                    "mask_function": function, "attention_mask": mask,
                    "allow_is_causal_skip": allowed and not pattern.startswith("full"),
                    "allow_is_bidirectional_skip": allowed and pattern.startswith("full"),
                    "local_size": {"window": 3, "chunks": 3, "full window": 2}.get(pattern),
                }  # fmt: skip
                with self.subTest(size=size, pattern=pattern, padding=padding, allowed=allowed):
                    said = self.check(allowed, words, not pattern.startswith("full"))
                    if allowed:
                        found[size, pattern, padding] = said
        # Where words are exact, they are used.
        for size, pattern, padding, said in (
            ("prefill", "causal", "none", "none"),
            ("prefill", "causal", "real", "none"),
            ("prefill", "causal", "right", "words"),
            ("prefill", "causal", "left", "tensor"),
            ("prefill", "window", "none", "words"),
            ("prefill", "window", "right", "words"),
            ("prefill", "wide window", "real", "none"),
            ("prefill", "full", "none", "none"),
            ("prefill", "full", "right", "words"),
            ("prefill", "full window", "none", "words"),
            ("prefill", "chunks", "none", "tensor"),
            ("prefill into a static cache", "causal", "real", "none"),
            ("prefill into a static cache", "window", "real", "words"),
            ("more tokens", "causal", "real", "words"),
            ("more tokens", "window", "real", "words"),
            ("more tokens in a static cache", "causal", "real", "words"),
            ("decode", "causal", "real", "none"),
            ("decode", "window", "real", "words"),
            ("decode in a static cache", "causal", "none", "words"),
            ("decode in a static cache", "causal", "real", "words"),
            ("decode in a static cache", "causal", "left", "words and tensor"),
            ("decode in a full window", "window", "real", "none"),
        ):
            self.assertEqual(found[size, pattern, padding], said, (size, pattern, padding))

    def test_a_static_cache_that_counts_on(self) -> None:
        seen = torch.tensor(5)
        words = {"q_length": 4, "kv_length": 12, "q_offset": seen, "batch_size": 1}
        mask = _transformers_masks.mask_in_words(**words)
        expected = masking_utils.sdpa_mask(**{**words, "q_offset": 5}, allow_is_causal_skip=False)
        seen.add_(4)  # as the first layer does
        self.assertIsInstance(mask, _transformers_masks.WordsMask)
        self.assertTrue(torch.equal(mask & True, expected))

    def test_packed_sequences(self) -> None:
        ids = masking_utils.find_packed_sequence_indices(torch.tensor([[0, 1, 2, 0, 1, 0]]))
        for pattern in ("causal", "window", "full"):
            function = masking_utils.and_masks(
                self.patterns()[pattern], masking_utils.packed_sequence_mask_function(ids)
            )
            words = {
                "batch_size": 1, "q_length": 6, "kv_length": 6, "mask_function": function,
                "allow_is_causal_skip": False,
            }  # fmt: skip
            mask = _transformers_masks.mask_in_words(**words)
            self.assertTrue(torch.equal(mask & True, masking_utils.sdpa_mask(**words)))
            said = mask.attnrt_words
            self.assertEqual(said.offsets.tolist(), [0, 3, 5, 6])
            self.assertEqual(said.offsets.dtype, torch.int32)
            self.assertEqual(said.causal, pattern != "full")
            self.assertEqual(said.window_left, 2 if pattern == "window" else None)

    def test_positions_that_are_remapped_alone(self) -> None:
        remap = getattr(masking_utils, "remap_positions_for_packed_sequence", None)
        if remap is None:
            return  # older versions have no such function
        positions = torch.tensor([[0, 1, 2, 0, 1, 0]])
        words = {
            "batch_size": 1, "q_length": 6, "kv_length": 6,
            "mask_function": remap(masking_utils.causal_mask_function, positions),
            "allow_is_causal_skip": False,
        }  # fmt: skip
        mask = _transformers_masks.mask_in_words(**words)
        self.assertFalse(hasattr(mask, "attnrt_words"))
        self.assertTrue(torch.equal(mask, masking_utils.sdpa_mask(**words)))

    def test_what_models_do_with_masks(self) -> None:
        def made() -> Any:
            mask = _transformers_masks.mask_in_words(
                batch_size=2, q_length=7, kv_length=7,
                mask_function=masking_utils.sliding_window_causal_mask_function(3),
            )  # fmt: skip
            self.assertIsInstance(mask, _transformers_masks.WordsMask)
            return mask

        plain = made() & True
        self.assertIs(type(plain), torch.Tensor)
        for name, function, keeps in (
            ("the whole", lambda mask: mask[:, :, :, :7], True),
            ("contiguous", lambda mask: mask.contiguous(), True),
            ("to", lambda mask: mask.to("cpu"), True),
            ("a part", lambda mask: mask[:, :, :, :5], False),
            ("every second", lambda mask: mask[:, :, ::2], False),
            ("one sequence", lambda mask: mask[1:], False),
            ("by a list", lambda mask: mask[[1, 0]], False),
            ("a dtype", lambda mask: mask.to(torch.float32), False),
            ("inverted", lambda mask: ~mask, False),
            ("where", lambda mask: torch.where(mask, 0.0, -1.0), False),
            ("joined", lambda mask: torch.cat((mask, mask), dim=-1), False),
            ("transposed", lambda mask: mask.mT, False),
            ("a method", lambda mask: mask.logical_not().any(), False),
        ):
            with self.subTest(name):
                result = function(made())
                self.assertEqual(isinstance(result, _transformers_masks.WordsMask), keeps)
                self.assertTrue(torch.equal(result, function(plain)))

    def test_masks_that_models_change(self) -> None:
        part = torch.rand((7, 7), generator=torch.Generator().manual_seed(4)) < 0.5

        def by_and(mask: Any) -> Any:
            mask &= part
            return mask

        modes = (torch.no_grad, torch.inference_mode)
        for plain, read, mode in itertools.product((False, True), (False, True), modes):
            for name, change in (
                ("setitem", lambda mask: mask.__setitem__((..., slice(4, None), 3), False)),
                ("masked_fill_", lambda mask: mask.masked_fill_(part, False)),
                ("&=", by_and),
                ("fill_", lambda mask: mask.fill_(False)),
                ("out", lambda mask: torch.logical_not(mask & True, out=mask)),
                ("a view", lambda mask: mask[:, :, 2:].zero_()),
                ("a view of a view", lambda mask: mask[0].mT[:, 1].logical_not_()),
                ("its copy", lambda mask: mask.contiguous() & part),
            ):
                with self.subTest(name, plain=plain, read=read, mode=mode.__name__), mode():
                    words = {
                        "batch_size": 1, "q_length": 7, "kv_length": 7,
                        "mask_function": masking_utils.sliding_window_causal_mask_function(3),
                        "allow_is_causal_skip": not plain,
                    }  # fmt: skip
                    mask = _transformers_masks.mask_in_words(**words)
                    self.assertEqual(type(mask) is torch.Tensor, plain)
                    expected = masking_utils.sdpa_mask(**{**words, "allow_is_causal_skip": False})
                    before = expected.clone()
                    if read:
                        self.assertTrue(torch.equal(mask & True, before))
                    self.assertIsNotNone(_transformers_masks.words_of(mask))
                    results = change(mask), change(expected)
                    if results[0] is not None:
                        self.assertTrue(torch.equal(*results))
                    changed = not torch.equal(expected, before)
                    self.assertEqual(changed, name != "its copy")
                    self.assertTrue(torch.equal(mask & True, expected))
                    self.assertEqual(_transformers_masks.words_of(mask) is None, changed)
                    again = mask[:, :, :, :7].contiguous()
                    self.assertEqual(_transformers_masks.words_of(again) is None, changed or plain)
                    self.assertTrue(torch.equal(again & True, expected))


if __name__ == "__main__":
    unittest.main()
