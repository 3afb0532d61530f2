"""Assign samples to their nearest class mean, batch by batch: the streaming form of Algorithm 1, without Lloyd."""

from dataclasses import dataclass

import torch
from torch import Tensor

from resque.errors import RepresentationError
from resque.indices.class_sums import ScratchBuffer
from resque.indices.clustering import one_minus_ari
from resque.indices.profile import Profile

__all__ = ["NearestMeanAssignment", "NearestPoint"]

_TIE_TOLERANCE = 1e-9
_EXACT = "donot_use_mm_for_euclid_dist"


class NearestPoint:
    """Search for the nearest of a few points.

    A matrix product finds the two nearest; where rounding could swap those, the distances are computed one by one.
    Computing all of them one by one takes 63 ms instead of 5 ms for 128 rows of width 8,192 and 100 points.

    Args:
        points: ``(classes, width)`` float64.

    Example:
        >>> search = NearestPoint(torch.tensor([[0.0], [5.0]], dtype=torch.float64))
        >>> search.nearest(torch.tensor([[1.0], [4.0], [2.5]])).tolist()
        [0, 1, 0]
    """

    def __init__(self, points: Tensor) -> None:
        self._scratch = ScratchBuffer()
        self._set_points(points)

    def _set_points(self, points: Tensor) -> None:
        self.points = points
        self._center = points.mean(0)  # distances keep their digits when all points are large
        self._centered = points - self._center
        self._squared_norms = self._centered.square().sum(1)

    def nearest(self, rows: Tensor) -> Tensor:
        """Return the index of the nearest point of each row ``(n, width)``, ``(n,)`` int64.

        The first of equally near points counts; a row that is not finite gives -1.
        """
        if rows.shape[0] == 0:
            return torch.zeros(0, dtype=torch.int64, device=rows.device)
        if self.points.device != rows.device:
            self._set_points(self.points.to(rows.device))
        if rows.device.type != "cpu":  # to pick the rows that need it would wait for the device
            return torch.cat([self._nearest_exactly(values) for _, values in self._scratch.parts(rows)])
        return torch.cat([self._nearest(values, rows[part]) for part, values in self._scratch.parts(rows)])

    def _nearest(self, values: Tensor, rows: Tensor) -> Tensor:
        """Search for rows whose float64 ``values`` may be overwritten."""
        values -= self._center
        distances = torch.addmm(self._squared_norms, values, self._centered.T, alpha=-2.0)
        least, nearest = distances.min(1)
        second = distances.scatter_(1, nearest[:, None], torch.inf).amin(1)  # topk takes six times that for 100 points
        size = torch.linalg.vector_norm(values, dim=1).square() + self._squared_norms.max()
        clear = second - least > _TIE_TOLERANCE * size  # not if anything overflows, or is NaN
        nearest[~clear] = self._nearest_exactly(rows[~clear].double())
        return nearest

    def _nearest_exactly(self, rows: Tensor) -> Tensor:
        """Compute the distances one by one, at a scale where their squares neither overflow nor underflow."""
        if not len(rows):
            return torch.zeros(0, dtype=torch.int64, device=rows.device)
        finite = torch.isfinite(rows).all(1)
        rows = torch.where(finite[:, None], rows, 0.0)
        exponent = torch.frexp(torch.maximum(rows.abs().max(), self.points.abs().max())).exponent
        distances = torch.cdist(torch.ldexp(rows, -exponent), torch.ldexp(self.points, -exponent), compute_mode=_EXACT)
        return torch.where(finite, distances.argmin(1), -1)


@dataclass
class NearestMeanAssignment:
    """Contingency table of true classes and nearest class means, streamed and merged with ``+``.

    Attributes:
        labels: ``(classes,)`` int64, ascending.
        means: Search for the nearest class mean.
        table: ``(classes, classes)`` int64, number of samples by true class and nearest mean.
        invalid: ``()`` int64, number of samples of an unknown class or with NaN or infinity; any such sample spoils
            the table.

    Example:
        >>> means = torch.tensor([[0.0], [5.0]], dtype=torch.float64)
        >>> assignment = NearestMeanAssignment.to_means(torch.tensor([3, 8]), means)
        >>> assignment.add(torch.tensor([[1.0], [4.0], [2.0]]), torch.tensor([3, 8, 8]))
        >>> assignment.table.tolist()
        [[1, 0], [1, 1]]
    """

    labels: Tensor
    means: NearestPoint
    table: Tensor
    invalid: Tensor

    @classmethod
    def to_profile(cls, profile: Profile) -> "NearestMeanAssignment":
        """Create an empty assignment to the class means of a profile: the second of two streaming passes."""
        if not profile.n:
            raise RepresentationError("the profile is empty and has no class means: update it with the data first")
        return cls.to_means(*profile.class_means())

    @classmethod
    def to_means(cls, labels: Tensor, means: Tensor) -> "NearestMeanAssignment":
        """Create an empty assignment to class means ``(classes, width)`` in float64."""
        with torch.inference_mode(False):  # so that it can be updated outside of it
            table = torch.zeros(len(labels), len(labels), dtype=torch.int64, device=means.device)
            invalid = torch.zeros((), dtype=torch.int64, device=means.device)
        return cls(labels.to(means.device), NearestPoint(means), table, invalid)

    def add(self, rows: Tensor, labels: Tensor) -> None:
        """Assign a batch: rows ``(n, width)`` of any float type, labels ``(n,)``."""
        device, width = self.table.device, self.means.points.shape[1]
        if rows.shape[1] != width:
            raise RepresentationError(f"representations of width {rows.shape[1]}; the class means are of width {width}")
        rows, labels = (values.to(device, non_blocking=True) for values in (rows, labels))
        column = torch.searchsorted(self.labels, labels).clamp_(max=len(self.labels) - 1)
        nearest = self.means.nearest(rows)
        self.invalid += ((self.labels[column] != labels) | (nearest < 0)).sum()
        cell = column * len(self.labels) + nearest.clamp_(min=0)
        self.table.view(-1).index_add_(0, cell, torch.ones_like(cell))

    def __add__(self, other: "NearestMeanAssignment") -> "NearestMeanAssignment":
        """Return the assignment of both sets of samples to the same means."""
        device = self.table.device
        if not torch.equal(self.means.points, other.means.points.to(device)):
            raise RepresentationError("the assignments are to different class means: assign both to the same profile")
        table, invalid = self.table + other.table.to(device), self.invalid + other.invalid.to(device)
        return NearestMeanAssignment(self.labels, self.means, table, invalid)

    @property
    def one_minus_ari(self) -> float:
        """``1 - ARI`` of the table (eq. 4).

        Raises:
            RepresentationError: No sample is assigned yet, or some samples are invalid.
        """
        if invalid := int(self.invalid):
            raise RepresentationError(
                f"{invalid} sample(s) with NaN or infinity, or of none of the classes {self.labels.tolist()}"
            )
        if not bool(self.table.any()):
            raise RepresentationError("no sample has been assigned yet: add at least one batch")
        return one_minus_ari(self.table.cpu().numpy())
