"""Serve a bundle over HTTP: ``python serve.py``; ``--help`` lists the options."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recsys import cli


def main(config: DictConfig) -> None:
    """Serve until interrupted."""
    # Imported here, so that --help and a mistyped command answer at once.
    from recsys.api.cores import default_workers
    from recsys.api.options import ServingOptions

    workers = config.workers
    if workers is None:
        workers = default_workers(str(config.device), config.rate_limit)
    if workers > 1:
        from recsys.api.supervisor import serve
    else:
        from recsys.api.server import serve

    endpoint = config.tracing.endpoint
    exploration: Any = OmegaConf.to_container(config.exploration, resolve=True)
    serve(
        Path(str(config.bundle)),
        host=str(config.host),
        port=config.port,
        device=config.device,
        log_level=config.log_level,
        options=ServingOptions(
            deadline_ms=config.deadline_ms,
            max_batch=config.max_batch,
            max_queue=config.max_queue,
            cache_mb=config.cache.max_mb if config.cache.enabled else 0,
            threads=config.threads,
            workers=workers,
            rate_limit=config.rate_limit,
            keys_for_reads=config.keys_for_reads,
            allowed_hosts=[str(name) for name in config.allowed_hosts],
            preload_text_model=config.preload_text_model,
            text_model=str(config.text_model) if config.text_model is not None else None,
            store_url=str(config.store.url or "auto") if config.store.enabled else None,
            store_timeout_s=config.store.timeout_s,
            retention_days=config.store.retention_days,
            live_events=config.store.live_events,
            rules=OmegaConf.to_container(config.rules, resolve=True),  # type: ignore[arg-type]
            exploration_epsilon=exploration["epsilon"],
            exploration_slots=exploration["slots"],
            exploration_places=exploration["places"],
            exploration_days=exploration["days"],
            tracing_endpoint=str(endpoint) if endpoint is not None else None,
            tracing_sample_rate=config.tracing.sample_rate,
            tracing_service_name=str(config.tracing.service_name),
        ),
        api_keys=Path(str(config.api_keys)) if config.api_keys is not None else None,
    )


if __name__ == "__main__":
    cli.run(main, "serve")
