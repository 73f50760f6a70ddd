"""`check`: a study, or a layer of your own, before anything is trained. Loads torch for what is a user's own only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from miras_search.commands.common import JsonOption, SetOption, emit, many, note, say
from miras_search.errors import MirasError

if TYPE_CHECKING:
    from miras_search.study.study import Study

StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY.yaml", help="A study file, or the name of one that ships with the package.")
]


def check(
    studies: Annotated[
        list[str] | None, typer.Argument(metavar="[STUDY.yaml]...", help="Study files, or names of shipped studies.")
    ] = None,
    overrides: SetOption = None,
    mixer: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Try a layer of your own instead, as in my_layers.MyLayer; loads torch."),
    ] = None,
    args: Annotated[
        str | None, typer.Option(metavar="JSON", help="The layer's arguments, as in '{\"width\": 4}'.")
    ] = None,
    d_model: Annotated[int, typer.Option("--d-model", min=1, metavar="N", help="The layer's width.")] = 32,
    as_json: JsonOption = False,
) -> None:
    """Validate study files, without running anything; or try a layer of your own.

    One line a study on stdout; each problem on stderr as path:line:col: where: what. Options of a study's plugins are
    tried on random inputs. Of a layer one line a property: shape, causality, gradients and so on.
    """
    if mixer is not None:
        if studies:
            raise MirasError("check: a layer and studies are checked apart: give --mixer or study files")
        from miras_search.commands.layer import check_layer

        check_layer(mixer, args, d_model, as_json=as_json)
        return
    if not studies:
        raise MirasError("check: name a study file, a shipped study, or a layer of your own by --mixer")
    from miras_search.engine.tried import broken_options, try_options
    from miras_search.study.loader import StudyError, load

    documents: list[dict[str, object]] = []
    codes: list[int] = []
    for path in studies:
        try:
            study = load(path, overrides or ())
        except StudyError as error:
            codes.append(error.exit_code)
            documents.append({"path": path, "ok": False, "problems": error.problems})
            if not as_json:
                note(str(error))
            continue
        tried = try_options(study)
        broken = broken_options(path, tried)
        jobs = study.jobs
        size = many(len(study.cells), "cell")
        if study.search is not None:
            jobs *= study.search.trials
            size = many(study.search.trials, "trial")
        documents.append(
            {
                "path": study.path,
                "ok": not broken,
                "name": study.name,
                "cells": len(study.cells),
                "jobs": jobs,
                "tried": [one.option for one in tried],
                "problems": broken,
            }
        )
        if broken:
            codes.append(StudyError.exit_code)
        if not as_json:
            tell_shipped(study, path)
            for problem in broken:
                note(str(problem))
            if not broken:
                also = f"; tried: {', '.join(one.option for one in tried)}" if tried else ""
                say(f"{path}: ok ({size}, {many(jobs, 'job')}{also})")
    if as_json:
        emit({"studies": documents})
    if codes:
        raise typer.Exit(codes[0])


def tell_shipped(study: Study, path: str) -> None:
    """Say so when a name stood for a study of the package."""
    if study.shipped:
        note(f"{path}: no such file here; this is the study that ships with miras-search")
