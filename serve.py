"""Serve a bundle over HTTP: ``python serve.py``; ``--help`` lists the options."""

from pathlib import Path

from omegaconf import DictConfig

from recsys import cli


def main(config: DictConfig) -> None:
    """Serve until interrupted."""
    # Imported here, so that --help and a mistyped command answer at once.
    from recsys.api.server import serve

    serve(
        Path(str(config.bundle)),
        host=str(config.host),
        port=config.port,
        device=config.device,
        log_level=config.log_level,
    )


if __name__ == "__main__":
    cli.run(main, "serve")
