"""The command line: the same verbs as the library, with the same options.

======================  ================================================================================
file                    what it holds
======================  ================================================================================
``main``                the application: every verb, registered
``lstsq`` ``svd``       one file a verb
``pca`` ``plan``
``verify`` ``runs``
``qr`` ``ingest``
``als``
``recommend``
``demo``
``demo_flights``        the three parts of the demo
``demo_scale``
``demo_adult``
``demo_folder``         what a demo that was killed leaves for the next
``options``             what verbs take, as dataclasses whose fields are options
``ratings``             the same of ratings
``verbs``               from a function of such dataclasses to a command; from an exception to one sentence
``recorded``            the reading options kept beside a saved solution
``factor``              what ``svd`` and ``pca`` do alike
``show``                tables on the terminal, and JSON
``show_factor``         those of ``svd`` and ``pca``
``show_als``            those of ``als``
======================  ================================================================================

Status of a run: 0 the certificate holds; 1 it does not; 2 something the user can put right; 3 a bug; 130 interrupted;
143 told to end (SIGTERM).
Nothing heavier than typer is imported before a verb runs, so that ``leyden --help`` answers at once.
"""

from __future__ import annotations

import gc


def main() -> None:
    """Run the command line."""
    # Importing makes a million objects, hardly one of them garbage: looking for it every 700 takes a tenth of the time.
    gc.set_threshold(200_000)
    from leyden.cli.main import app

    app(prog_name="leyden")
