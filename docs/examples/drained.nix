# A host behind HAProxy: taken out before each switch and reboot, put back after it, however it ended.
{ pkgs, lib, ... }:

let
  proxy = pkgs.writeShellApplication {
    name = "proxy";
    runtimeInputs = [ pkgs.socat pkgs.hostname ];
    text = ''
      # proxy drain|ready: haproxy's runtime API, on the load balancer
      echo "set server web/$(hostname) state $1" | socat - TCP:lb.example.org:9999
      [ "$1" = ready ] || sleep 10 # what is under way comes to its end
    '';
  };
  tell = what: [ (lib.getExe proxy) what ];
in
{
  services.narwharf-agent = {
    enable = true;
    tokenFile = "/var/lib/secrets/narwharf-token";
    settings = {
      server = [ "https://cache.example.org" ];
      channel = "web";
      keys = [ "deploy-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
      content_keys = [ "ci-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
      # A hook that fails before the switch leaves the host as it is, and is tried again.
      hooks = { pre_switch = tell "drain"; pre_reboot = tell "drain"; post_switch = tell "ready"; timeout = "2m"; };
    };
  };
}
