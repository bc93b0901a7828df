# The agent as a NixOS module.
#
#   services.narwharf-agent = {
#     enable = true;
#     package = narwharf;
#     settings = {
#       server = [ "https://cache.example.org" ];
#       origin = "cache.example.org/prod";
#       channel = "prod";
#       keys = [ "deploy-1:…" ];
#       content_keys = [ "ci-1:…" "cache.nixos.org-1:…" ];
#       token_file = "/var/lib/secrets/narwharf-token";
#     };
#   };
{ config, lib, pkgs, ... }:

let
  cfg = config.services.narwharf-agent;
  format = pkgs.formats.toml { };
  configFile = format.generate "narwharf-agent.toml" cfg.settings;
in
{
  options.services.narwharf-agent = {
    enable = lib.mkEnableOption "the Narwharf agent, which makes this host follow a channel";

    package = lib.mkOption {
      type = lib.types.package;
      description = "The package with bin/narwharf.";
    };

    settings = lib.mkOption {
      type = lib.types.submodule {
        freeformType = format.type;
        options = {
          server = lib.mkOption {
            type = lib.types.nonEmptyListOf lib.types.str;
            description = "Base URLs of the server, tried in turn.";
            example = [ "https://cache.example.org" ];
          };
          origin = lib.mkOption {
            type = lib.types.str;
            description = "What the releases of the channel give as their origin.";
            example = "cache.example.org/prod";
          };
          channel = lib.mkOption {
            type = lib.types.str;
            description = "The channel to follow.";
          };
          target = lib.mkOption {
            type = lib.types.str;
            default = config.networking.hostName;
            defaultText = lib.literalExpression "config.networking.hostName";
            description = "Whose entry of a release this host takes.";
          };
          host = lib.mkOption {
            type = lib.types.str;
            default = config.networking.hostName;
            defaultText = lib.literalExpression "config.networking.hostName";
            description = "This host's name towards the server.";
          };
          keys = lib.mkOption {
            type = lib.types.nonEmptyListOf lib.types.str;
            description = "Public keys of those who may promote.";
          };
          content_keys = lib.mkOption {
            type = lib.types.listOf lib.types.str;
            default = [ ];
            description = "Public keys whose signatures make a store path good: CI's and cache.nixos.org's, not the server's.";
          };
        };
      };
      description = "agent.toml; docs/agent.md explains every key.";
    };

    healthChecks = lib.mkOption {
      type = lib.types.attrsOf lib.types.path;
      default = { };
      description = ''
        Programs that tell by their exit status whether this system is well.
        They come with the system, so a release brings its own.
      '';
      example = lib.literalExpression ''{ web = pkgs.writeShellScript "web" "curl -fs http://localhost/"; }'';
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ]; # sw/bin/narwharf: the agent that confirms a new system

    environment.etc = {
      "narwharf/agent.toml".source = configFile;
    } // lib.mapAttrs' (name: program: lib.nameValuePair "narwharf/health.d/${name}" { source = program; }) cfg.healthChecks;

    systemd.services.narwharf-agent = {
      description = "Narwharf agent";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" "nix-daemon.socket" ];

      # A switch must not end the agent that watches over it. The agent ends
      # by itself when its unit has changed and nothing is under way.
      restartIfChanged = false;
      stopIfChanged = false;
      unitConfig.X-StopOnRemoval = false;
      unitConfig.StartLimitIntervalSec = 0;

      environment = config.networking.proxy.envVars;
      path = [ config.nix.package config.systemd.package pkgs.bash pkgs.coreutils ];
      # The unit names the file itself, so that a changed one changes the unit.
      restartTriggers = [ configFile ];
      serviceConfig = {
        ExecStart = "${cfg.package}/bin/narwharf agent run --config /etc/narwharf/agent.toml";
        Restart = "always";
        RestartSec = 2;
        UMask = "0077";
      };
    };
  };
}
