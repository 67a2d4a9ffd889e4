"""The catalogue of metrics in; dashboards, alerts and what sets them up, as files here, out: `make grafana`."""
