"""The participant and group levels on the command line."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from bids_tractography.app.forecast import Forecast, as_json, forecast
from bids_tractography.app.group import write_group_table
from bids_tractography.app.local import Outcome
from bids_tractography.app.outcome import Failure
from bids_tractography.app.reports import remake_reports
from bids_tractography.app.request import Request, Study, open_study
from bids_tractography.app.run import exit_code, run
from bids_tractography.cli.log import progress_shown, set_up_logging
from bids_tractography.cli.parser import LEVELS, STOP_AFTER, build_parser
from bids_tractography.cli.tables import extent, head, print_outcomes, print_plan
from bids_tractography.config.load import load_config
from bids_tractography.config.presets import configuration_path
from bids_tractography.errors import TractographyError, UnknownLevelError, UsageError
from bids_tractography.inputs import read_filters
from bids_tractography.machine.container import describe_container
from bids_tractography.machine.cpus import count_cpus, share_cpus
from bids_tractography.machine.files import exists, printable, resolve
from bids_tractography.machine.memory import available_memory_mib

logger = logging.getLogger(__name__)


def execute(options: argparse.Namespace) -> int:
    """Execute the participant or group level; return the exit code."""
    if options.analysis_level not in LEVELS:
        raise UnknownLevelError(
            f"unknown analysis level '{options.analysis_level}'.", f"Levels: {', '.join(LEVELS)}."
        )
    console = Console(stderr=True)
    set_up_logging(console, options.verbose)
    for line in options.ignored:
        logger.info("Ignored: %s.", line)
    if options.analysis_level == "group":
        _refuse_participant_options(options)
        path, n_rows = write_group_table(
            options.output_dir.absolute(),
            read_files=options.verify_files,
            bids_dir=options.bids_dir.absolute(),
            report=not options.no_report,
        )
        print(f"{path}: {n_rows} tractograms")
        if not options.no_report:
            print(path.with_name("index.html"))
        return 0
    if options.verify_files:
        raise UsageError(
            "--verify-files is for the group level; the participant level always does."
        )
    if options.reports_only:
        n_threads = options.nprocs or options.omp_nthreads or count_cpus(os.environ)
        pages = remake_reports(resolve(options.output_dir), options.participant_label, n_threads)
        print("\n".join(map(printable, pages)))
        return 0
    if options.json and not options.dry_run:
        raise UsageError("--json goes with --dry-run.")
    request = _request(options)
    if not options.json:
        for line in head(request):
            logger.info("%s", line)
    if options.dry_run:
        return _dry_run(request, options)
    study = open_study(request)
    request = _with_threads(request, study, options)
    logger.info("%s", extent(request, study))
    outcomes: dict[str, Outcome] = {}
    with progress_shown(console, len(study.participants)) as report:
        ends = run(request, study, report)
        for name, outcome in ends:
            outcomes[name] = outcome
            if isinstance(outcome, Failure) and options.stop_on_first_crash:
                ends.close()
    if sys.stdout is not None:
        with suppress(OSError):  # a full or closed standard output does not undo what is done
            print_outcomes(request, outcomes)
    return exit_code(outcomes)


def _dry_run(request: Request, options: argparse.Namespace) -> int:
    """Print what a run would do; return the exit code that it would have."""
    try:
        study = open_study(request)
        request = _with_threads(request, study, options)
        foreseen = forecast(request, study)
    except TractographyError as error:
        if not options.json:
            raise
        foreseen = Forecast([], error, error.exit_code)
    if options.json:
        print(json.dumps(as_json(request, foreseen), indent=2))
    else:
        print_plan(request, foreseen)
    if foreseen.fault:
        raise foreseen.fault
    return foreseen.exit_code


def _refuse_participant_options(options: argparse.Namespace) -> None:
    """Refuse options that the group level would ignore."""
    unused = build_parser().parse_args(["in", "out", "group"])
    kept = ("bids_dir", "output_dir", "verify_files", "verbose", "no_report", "ignored")
    given = [
        f"--{name.replace('_', '-')}"
        for name, value in vars(options).items()
        if name not in kept and value != getattr(unused, name)
    ]
    if given:
        raise UsageError(f"the group level does not accept {', '.join(given)}.")


def _request(options: argparse.Namespace) -> Request:
    output = resolve(options.output_dir)
    if options.ray_address and options.executor != "ray":
        raise UsageError("--ray-address goes with --executor ray.")
    if options.mem and options.executor == "ray":
        raise UsageError("--mem is for this machine: it does not go with --executor ray.")
    settings = list(options.set)
    if options.name is not None:
        settings.append(f"output.name={json.dumps(options.name)}")
    if options.random_seed is not None:
        settings.append(f"seeding.rng_seed={options.random_seed}")
    return Request(
        bids_dir=resolve(options.bids_dir),
        output_dir=output,
        work_dir=resolve(options.work_dir or output / ".work"),
        config=load_config(
            configuration_path(options.config) if options.config else None, settings
        ),
        participants=tuple(options.participant_label),
        sessions=tuple(options.session_label),
        filters=read_filters(options.bids_filter_file) if options.bids_filter_file else {},
        derivatives=tuple(_named_path(text) for text in options.derivatives),
        memory_mib=options.mem or available_memory_mib(os.environ),
        check_dataset=not options.skip_bids_validation,
        database=options.bids_database_dir,
        fresh=options.fresh,
        overwrite=options.overwrite,
        last_stage=STOP_AFTER[options.stop_after],
        container=describe_container(os.environ, Path(sys.prefix)),
        executor=options.executor,
        ray_address=options.ray_address,
        report=not options.no_report,
    )


def _with_threads(request: Request, study: Study, options: argparse.Namespace) -> Request:
    """Share the threads out among runs that are processed at the same time."""
    per_run = options.omp_nthreads
    total = options.nprocs or max(count_cpus(os.environ), per_run or 1)
    if per_run and per_run > total:
        logger.warning("--omp-nthreads %d is more than --nprocs %d allows.", per_run, total)
    n_runs, n_threads = share_cpus(total, per_run, len(study.participants))
    return replace(request, n_procs=n_runs, n_threads=n_threads)


def _named_path(text: str) -> tuple[str | None, Path]:
    name, separator, path = text.partition("=")
    if separator and not exists(Path(text)):
        return name, resolve(Path(path))
    return None, resolve(Path(text))
