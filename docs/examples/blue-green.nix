# Blue and green: two sets of hosts, two channels, one load balancer between them. The idle colour gets the
# release and is looked at; then the load balancer is turned, and the way back is to turn it again.
#
#   narwharf promote green ./result --wait --require-hosts 3      # green is idle
#   curl -fsS https://green.internal.example.org/health
#   ./turn green                                                  # your load balancer
#
# The next release goes to blue. With `requires` in blue's policy it has to have baked on green first.
colour:
{ pkgs, ... }:

{
  services.narwharf-agent = {
    enable = true;
    tokenFile = "/var/lib/secrets/narwharf-token";
    settings = {
      server = [ "https://cache.example.org" ];
      channel = colour;
      keys = [ "deploy-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
      content_keys = [ "ci-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
    };
    healthChecks.web = { script = "curl -fsS -o /dev/null http://localhost/"; path = [ pkgs.curl ]; };
  };
  services.nginx = { enable = true; virtualHosts.default = { default = true; root = pkgs.writeTextDir "index.html" colour; }; };
}
