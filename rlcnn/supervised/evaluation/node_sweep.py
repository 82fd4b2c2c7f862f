"""A sweep over the nodes of a network: how well a linear classifier does behind each block."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from rich.console import Console

from envs.errors import UserError
from rlcnn.accelerate.devices import resolve_device
from rlcnn.data.atari.options import PolicyPlay
from rlcnn.data.images import Split
from rlcnn.encoders.backbones import BackboneEncoder, block_nodes, split_name
from rlcnn.encoders.base import output_shape
from rlcnn.encoders.registry import encoder_options, list_encoders
from rlcnn.runs.provenance import provenance
from rlcnn.supervised.evaluation import probe
from rlcnn.supervised.evaluation.baselines import majority
from rlcnn.supervised.evaluation.gains import Gain, mean_gain
from rlcnn.supervised.evaluation.options import ProbeConfig
from rlcnn.supervised.evaluation.probe import Fit
from rlcnn.supervised.evaluation.probing import METHOD_NAMES, build_probed, fit_encoder, load_images


@dataclass(frozen=True)
class ProbedNode:
    """A node, and the classifier on its features.

    Attributes:
        node: its name.
        shape: of its output for one frame.
        features: for one observation, after pooling.
        macs: multiply-accumulates for one observation.
        fit: the linear classifier.
        seconds: that encoding the images and fitting the classifier took.
    """

    node: str
    shape: tuple[int, ...]
    features: int
    macs: int
    fit: Fit
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "node": self.node,
            "shape": list(self.shape),
            "features": self.features,
            "macs": self.macs,
            "seconds": self.seconds,
            **self.fit.to_json(),
        }


@dataclass(frozen=True)
class NodeSweep:
    """The nodes of a network, the most accurate first, and what could not be probed, and why."""

    config: ProbeConfig
    network: str
    images: Split
    nodes: list[ProbedNode]
    skipped: Mapping[str, str]

    def gap(self, node: ProbedNode) -> Gain:
        """How much more accurate a node is than the best, at most 0, with its interval."""
        best, own = self.nodes[0].fit, node.fit
        gain = mean_gain((own.correct.astype(float) - best.correct)[:, None], own.episodes)
        return replace(gain, interval=gain.interval or (-1.0, 1.0))

    @cached_property
    def cheapest(self) -> ProbedNode:
        """The node with the fewest MACs among those that are not clearly below the best."""
        equal = [self.nodes[0]]
        for node in self.nodes[1:]:
            interval = self.gap(node).interval
            assert interval is not None
            equal += [node] if interval[1] >= 0 else []
        return min(equal, key=lambda node: node.macs)

    def to_json(self) -> dict[str, Any]:
        """Everything about the sweep as JSON values."""
        config = self.config
        return {
            "network": self.network,
            "weights": config.weights,
            "options": config.encoder_options,
            "data": config.data,
            "task": self.images.train.tasks[0].name,
            "train": len(self.images.train),
            "test": len(self.images.test),
            "method": config.methods[0],
            "seed": config.seed,
            "majority": self._majority,
            "nodes": [
                {**one.to_json(), "over_best": self.gap(one).to_json()} for one in self.nodes
            ],
            "skipped": dict(self.skipped),
            "cheapest": self.cheapest.node,
            "provenance": provenance(),
        }

    def lines(self) -> list[str]:
        """The sweep as a table of Markdown, with what it says."""
        train, test = self.images
        method = METHOD_NAMES[self.config.methods[0]]
        lines = [
            f"{self.network}, weights {self.config.weights}, {method}:"
            f" {len(train):,} images to fit on, {len(test):,} to test on;"
            f" majority class {100 * self._majority:.2f}%",
            "",
            "| node | output | features | MACs | accuracy | 95% interval | to the best, points |"
            " seconds |",
            "|---|---|---:|---:|---:|---|---|---:|",
        ]
        for one in self.nodes:
            lower, upper = (100 * end for end in one.fit.interval)
            gap = self.gap(one)
            below, above = (100 * end for end in gap.interval or (-1.0, 1.0))
            difference = f"{100 * gap.value:+.2f} ({below:+.2f} to {above:+.2f})"
            lines.append(
                f"| {one.node} | {'x'.join(map(str, one.shape))} | {one.features:,} |"
                f" {one.macs / 1e6:,.1f} M | {100 * one.fit.accuracy:.2f}% |"
                f" {lower:.2f} to {upper:.2f} | {'' if one is self.nodes[0] else difference} |"
                f" {one.seconds:,.1f} |"
            )
        lines.append("")
        lines += [f"{node}: {reason}" for node, reason in self.skipped.items()]
        return [
            *lines,
            "fewest MACs among the nodes that are not clearly below the best: --encoder"
            f" {self.network}:{self.cheapest.node}",
        ]

    @property
    def _majority(self) -> float:
        train, test = self.images
        return majority(train.labels, test.labels, train.tasks).figures["test/top1"]


def run_node_sweep(
    config: ProbeConfig, policies: Mapping[str, PolicyPlay], console: Console
) -> NodeSweep:
    """Fits a linear classifier behind each block of a network, by a valid configuration.

    Every node has the same images, weights and encoder options. Random weights are those of seed 0.
    A node is skipped if its images, options or weights do not fit it.

    Raises:
        UserError: as for :func:`rlcnn.supervised.evaluation.probing.run_probe`, or the encoder has
            no blocks to choose from, or none of them can be probed.
    """
    name, node = split_name(config.encoder)
    if name in list_encoders():
        raise UserError(
            f'--node-sweep is for networks of torchvision and timm, not "{name}": its layers are'
            " not cut"
        )
    # Refuses unknown names.
    encoder_options(name)
    if node:
        raise UserError(
            f'--node-sweep tries all blocks: expected --encoder {name}, not "{config.encoder}"'
        )
    found = block_nodes(name)
    if not found:
        raise UserError(
            f'network "{name}" has no blocks to choose from: name a node, --encoder {name}:NODE'
        )
    config = replace(
        config,
        device=resolve_device(config.device),
        encoder=f"{name}:{found[0]}",
        methods=config.methods[:1],
    )
    images, _ = load_images(config, policies)
    if config.size is not None:
        images = probe.read_once(images)
    nodes: list[ProbedNode] = []
    skipped: dict[str, str] = {}
    for place in found:
        try:
            encoder, _ = build_probed(config, f"{name}:{place}", images)
        except UserError as error:
            skipped[place] = str(error)
            continue
        assert isinstance(encoder, BackboneEncoder)
        began = time.perf_counter()
        fit = fit_encoder(place, encoder, images, config, console)[config.methods[0]]
        nodes.append(
            ProbedNode(
                place,
                output_shape(encoder.trunk, encoder.preprocessing.output_shape),
                encoder.features_dim,
                encoder.macs(),
                fit,
                time.perf_counter() - began,
            )
        )
    if not nodes:
        raise UserError(f"no node of {name} can be probed: {next(iter(skipped.values()))}")
    nodes.sort(key=lambda one: (-one.fit.accuracy, one.macs))
    return NodeSweep(config, name, images, nodes, skipped)
