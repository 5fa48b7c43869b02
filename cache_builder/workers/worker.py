"""What one worker of a cluster does: it loads a spec, and then builds the units that it is given by name."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from cache_builder.ahead import Writer
from cache_builder.announcements import announcements
from cache_builder.build import Session, begin, build_claimed, read_runtime, scratch_folder
from cache_builder.spec import is_place, local_path, parse_spec
from cache_builder.workers.leases import claim
from steerstats.cache import finished_sidecar
from steerstats.errors import InputError, SteerstatsError

POLL_S = 0.2
BUILT, FOUND, HELD, FAILED, VAIN = "built", "found", "held", "failed", "vain"


class Outcome(NamedTuple):
    """How a unit ended with a worker: "built"; "found" finished by another builder, or "held" by one; "failed", or so
    that trying again is "vain", with the problem."""

    name: str
    how: str
    problem: str = ""


class Worker:
    """A loaded spec on one actor. Public methods take and return plain values only.

    Parameters
    ----------
    spec : dict
    root : str
        The cache, as an absolute path.
    folder : str, optional
        Working directory of the driver, in which the spec's relative paths begin; Ray starts actors in another one.
    """

    def __init__(self, spec: dict[str, Any], root: str, folder: str = "") -> None:
        self.root = Path(root)
        self._writer, self._outcomes = Writer(), []
        try:
            _enter(folder, spec)
            runtime = read_runtime(self.root)
            self.session = Session(parse_spec(spec, "spec"), runtime, scratch=scratch_folder(self.root))
            begin(self.session, self.root, runtime)
        except SteerstatsError as error:
            # An exception in a constructor would reach the driver as a dead actor, and be retried for nothing.
            self.session, self.problem = None, f"{error}"
        else:
            self.problem = ""
            self._plans = {unit.name: unit for unit in self.session.units}

    def ready(self) -> dict[str, Any]:
        """Unit names, parity and what a user should know, or what is wrong with the spec."""
        if self.session is None:
            return {"problem": self.problem}
        return {
            "problem": "",
            "units": list(self._plans),
            "parity": str(self.session.engine.parity or ""),
            "notes": announcements(self.session),
        }

    def build(self, name: str, following: str = "") -> list[Outcome]:
        """Compute one unit unless it is finished or another builder is at it, and begin to write it.

        Parameters
        ----------
        name : str
        following : str
            What this worker will probably build next, whose first inputs are encoded meanwhile; "" for none.

        Returns
        -------
        list of Outcome
            Of this unit if it is not built here, and of those whose writing has ended since the last call: usually of
            the one before this one.
        """
        lease = None if finished_sidecar(self.root, name) else claim(self.root, name)
        with lease or nullcontext():
            if finished_sidecar(self.root, name):  # also by its last holder, between the look and the claim
                self._outcomes.append(Outcome(name, FOUND))
            elif lease is None:
                time.sleep(POLL_S)  # the driver asks again
                self._outcomes.append(Outcome(name, HELD))
            else:
                plan, after = self._plans[name], self._plans.get(following)
                build_claimed(self.session, self.root, plan, lease, self._writer, self._written, following=after)
        return self._collect()

    def finish(self) -> list[Outcome]:
        """As `build`, once nothing is being written any more."""
        self._writer.join()
        return self._collect()

    def _written(self, name: str, error: Exception | None) -> None:
        how = BUILT if error is None else VAIN if isinstance(error, SteerstatsError) else FAILED
        problem = "" if error is None else " ".join(f"{error}".split()) or type(error).__name__
        self._outcomes.append(Outcome(name, how, problem))

    def _collect(self) -> list[Outcome]:
        count = len(self._outcomes)  # the writer may add to them
        ended, self._outcomes[:count] = self._outcomes[:count], []
        return ended


def _enter(folder: str, spec: Mapping[str, Any]) -> None:
    """Work where the driver does; without that folder only a spec that names no relative path can be built."""
    try:
        if folder:
            os.chdir(folder)
    except OSError as error:
        tables = spec.get("custom_datasets", {}), spec.get("vectors", {}).get("files", {})
        named = [name for table in tables for name in table.values()]
        named += [spec.get("prompt", {}).get("descriptions"), spec.get("run", {}).get("data_dir")]
        named += [spec["model"]["id"]] if is_place(spec["model"]["id"]) else []
        relative = [name for name in named if name and not local_path(name).is_absolute()]
        if relative:
            raise InputError(
                f"{folder}: not a folder that the Ray worker on {platform.node()} can enter ({error.strerror}), and "
                f"{relative[0]!r} begins there; name it by an absolute path, or build in a folder that every node sees"
            ) from error
