# Prometheus and Grafana with their data on the host: updated in place, one at a time, and gone back from if
# they do not answer or the data cannot be read. In the channel's policy: "rollout": {"max_concurrency": 1}.
{ pkgs, ... }:

{
  services.prometheus = {
    enable = true;
    retentionTime = "90d";
    scrapeConfigs = [{ job_name = "node"; static_configs = [{ targets = [ "localhost:9100" ]; }]; }];
    exporters.node.enable = true;
  };
  services.grafana = {
    enable = true;
    settings.security.secret_key = "$__file{/var/lib/secrets/grafana}";
    provision.enable = true;
    provision.datasources.settings.datasources = [{ name = "Prometheus"; type = "prometheus"; url = "http://localhost:9090"; }];
  };

  services.narwharf-agent = {
    enable = true;
    tokenFile = "/var/lib/secrets/narwharf-token";
    metrics.enable = true; # the agent's own, by node_exporter
    settings = {
      server = [ "https://cache.example.org" ];
      channel = "monitoring";
      keys = [ "deploy-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
      content_keys = [ "ci-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
      # Prometheus reads its log of the last hours before it answers.
      probation = { minimum = "2m"; settle = "1m"; };
      # A new data format cannot be gone back from: keep a copy of it before the switch.
      hooks.pre_switch = [ "${pkgs.writeShellScript "snapshot" ''
        set -eu
        ${pkgs.coreutils}/bin/rm -rf /var/lib/prometheus2.before
        ${pkgs.coreutils}/bin/cp -al /var/lib/prometheus2 /var/lib/prometheus2.before
      ''}" ];
    };
    healthChecks = {
      prometheus = { script = "curl -fsS http://localhost:9090/-/ready"; path = [ pkgs.curl ]; };
      grafana = { script = "curl -fsS http://localhost:3000/api/health"; path = [ pkgs.curl ]; };
      data = { script = "curl -fsS 'http://localhost:9090/api/v1/query?query=up' | grep -q '\"value\"'"; path = [ pkgs.curl pkgs.gnugrep ]; mode = "observe"; };
    };
  };
}
