"""Sure cells."""

import pytest
import torch

from engine.ops.seed import sure_cells, to_grid


def one_hot(winners: list[int], num_channels: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor([winners]), num_channels).permute(2, 0, 1).float()


def test_a_cell_is_sure_only_where_a_class_wins_at_low_or_background_at_high() -> None:
    #            both class, both background, class 2 then 1, neutral, contradiction
    low = one_hot([1, 0, 2, 0, 1], 3)
    high = one_hot([1, 0, 1, 1, 0], 3)
    assert sure_cells(low, high, [4, 9]).tolist() == [[4, 0, 9, 255, 255]]


def test_an_image_without_classes_is_surely_background() -> None:
    assert (sure_cells(torch.ones(1, 3, 4), torch.ones(1, 3, 4), []) == 0).all()


def test_the_ignore_value_of_large_class_sets_is_kept() -> None:
    assert sure_cells(one_hot([0, 1], 2), one_hot([1, 1], 2), [255], ignore=65535).tolist() == [[65535, 255]]


def test_sure_cells_agree_with_a_loop() -> None:
    low, high = torch.rand(4, 9, 7), torch.rand(4, 9, 7)
    ids = [3, 1, 8]
    seed = sure_cells(low, high, ids)
    for y in range(9):
        for x in range(7):
            a, b = int(low[:, y, x].argmax()), int(high[:, y, x].argmax())
            if a > 0 and b > 0:
                expected = ids[a - 1]
            elif a == 0 and b == 0:
                expected = 0
            else:
                expected = 255
            assert int(seed[y, x]) == expected


def test_channels_that_do_not_match_the_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 channels"):
        sure_cells(torch.rand(4, 2, 2), torch.rand(4, 2, 2), [1, 2])


@pytest.mark.parametrize("size", [(1, 1), (4, 5), (7, 3), (12, 20), (24, 20)])
def test_a_cell_is_the_mean_of_its_pixels_and_keeps_the_sum(size: tuple[int, int]) -> None:
    probabilities = torch.rand(3, 12, 20).softmax(dim=0)
    grid = to_grid(probabilities, size)
    assert grid.shape == (3, *size)
    torch.testing.assert_close(grid.sum(dim=0), torch.ones(size))
    if 12 % size[0] == 0 and 20 % size[1] == 0:
        top, left = 12 // size[0], 20 // size[1]
        torch.testing.assert_close(grid[:, 0, 0], probabilities[:, :top, :left].mean(dim=(1, 2)))
