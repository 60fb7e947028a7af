"""What a training starts from: a network with random weights, or with those of a file."""

from __future__ import annotations

from torch import nn

from vimvol.config import TrainConfig
from vimvol.errors import InputError
from vimvol.models.checkpoint import read_spec, read_weights
from vimvol.models.layouts import encoder_alone
from vimvol.models.registry import MODELS, default_options
from vimvol.train.export import network_options, new_network

WEIGHTLESS = ("class_token", "divide", "drop", "heads", "pad_to_canvas", "position", "rope")
"""Options that change what a network computes, but neither names nor shapes of its weights."""


def initialised(config: TrainConfig) -> nn.Module:
    """Return the network to train: random, or with the weights that the configuration starts from.

    Raises
    ------
    InputError
        If the weights cannot be read or are of another network.
    """
    model = new_network(config)
    if config.init is None:
        return model
    try:
        given, wanted = read_weights(config.init), model.state_dict()
    except InputError as error:
        raise type(error)(f"init = {config.init}, which the training starts from: {error}") from None
    if encoder_alone(given):  # the decoder stays random
        wanted = {name: value for name, value in wanted.items() if name.startswith("encoder.")}
    for name in {**wanted, **given}:
        has, needs = (tuple(s[name].shape) if name in s else None for s in (given, wanted))
        if has != needs:
            raise InputError(
                f"init = {config.init} holds another network than model = {config.model}: {name} has shape "
                f"{has or 'none'} and should have {needs or 'none'}; give weights of {config.model} "
                f"with the options of this training and target = {config.target}"
            )
    model.load_state_dict(given, strict=False)
    return model


def other_function(config: TrainConfig) -> str:
    """Return a line where the weights of ``config.init`` were learned by another function of the same shapes.

    Everything loads then, and the training spends its first steps on what the weights knew before.
    """
    spec = None if config.init is None else read_spec(config.init)
    if spec is None or spec.architecture not in MODELS:
        return ""
    learned = {**default_options(spec.architecture), **spec.options}
    now = {**default_options(config.model), **network_options(config)}
    apart = [key for key in WEIGHTLESS if key in learned and key in now and learned[key] != now[key]]
    if not apart:
        return ""
    differences = ", ".join(f"{key} = {_plain(learned[key])} and not {_plain(now[key])}" for key in apart)
    options = " ".join(f"--set options.{key}={_plain(learned[key])}" for key in apart)
    return (
        f"init = {config.init} learned with {differences}, so its weights do not compute here what they learned; to go "
        f"on from that, give {options}"
    )


def _plain(value: object) -> str:
    """Return a value as the command line takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
