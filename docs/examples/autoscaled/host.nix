# One machine of an autoscaled group on AWS. All run this system: their target is the group's, their
# names come from the network, and they join by their role, so user-data has no secret.
{ config, lib, pkgs, modulesPath, ... }:

let
  # Tells the group that this machine is in service, once it runs what the channel says. Before that
  # the load balancer sends it nothing. It is run after each switch: the second time AWS says no.
  complete = pkgs.writeShellApplication {
    name = "complete-lifecycle";
    runtimeInputs = [ pkgs.awscli2 pkgs.curl ];
    text = ''
      case "$NARWHARF_STATE" in ok|armed) ;; *) exit 0 ;; esac
      token=$(curl -fsS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
      about() { curl -fsS -H "X-aws-ec2-metadata-token: $token" "http://169.254.169.254/latest/meta-data/$1"; }
      AWS_DEFAULT_REGION=$(about placement/region)
      export AWS_DEFAULT_REGION
      aws autoscaling complete-lifecycle-action --lifecycle-action-result CONTINUE \
        --lifecycle-hook-name narwharf --auto-scaling-group-name web --instance-id "$(about instance-id)" || true
    '';
  };
in
{
  imports = [ (modulesPath + "/virtualisation/amazon-image.nix") ];
  networking.hostName = "";

  services.narwharf-agent = {
    enable = true;
    settings = {
      server = [ "https://cache.example.org" ];
      channel = "web";
      target = "web";
      identity.kind = "aws";
      keys = [ "deploy-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
      content_keys = [ "ci-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
      hooks.post_switch = [ (lib.getExe complete) ];
    };
    healthChecks.web = { script = "curl -fsS -o /dev/null http://localhost/"; path = [ pkgs.curl ]; };
  };

  services.nginx = { enable = true; virtualHosts.default = { default = true; root = pkgs.writeTextDir "index.html" "hello"; }; };
  networking.firewall.allowedTCPPorts = [ 80 ];
  system.stateVersion = "26.05";
}
