# The agent as a NixOS module: it makes this host follow a channel.
#
#   services.narwharf-agent = {
#     enable = true;
#     tokenFile = "/var/lib/secrets/narwharf-token";
#     settings = {
#       server = [ "https://cache.example.org" ];
#       channel = "web";
#       keys = [ "alice-1:…" ];                               # who may promote
#       content_keys = [ "ci-1:…" "cache.nixos.org-1:…" ];    # whose builds are good
#     };
#     healthChecks.web.script = "curl -fsS http://localhost/";
#     healthChecks.web.path = [ pkgs.curl ];
#   };
{ config, lib, pkgs, ... }:

let
  inherit (lib) concatStringsSep literalExpression mapAttrs' mapAttrsToList mkDefault mkEnableOption mkIf mkOption nameValuePair optional;
  common = import ./settings.nix { inherit lib; };
  inherit (common.types) duration secretFile;
  null' = lib.types.nullOr;
  str = lib.types.str;
  listOf = lib.types.listOf;

  cfg = config.services.narwharf-agent;
  where = "services.narwharf-agent";

  given = {
    token_file = cfg.tokenFile;
    join_token_file = cfg.joinTokenFile;
    metrics.textfile = if cfg.metrics.enable then "${cfg.metrics.directory}/narwharf.prom" else null;
  };
  # An option beside settings says the same as the key; where both are given settings count.
  settings = lib.recursiveUpdate (common.withoutNull given) (common.withoutNull cfg.settings);

  configFile = common.configFile {
    inherit pkgs settings;
    inherit (cfg) package;
    file = "agent";
    name = "narwharf-agent.toml";
    check = cfg.checkConfig;
  };

  checkOf = name: check: pkgs.writeShellApplication {
    name = "narwharf-check-${name}";
    text = ''
      export PATH=${lib.makeBinPath ([ pkgs.coreutils ] ++ check.path)}
      if [ "''${NARWHARF_CHECK_BOUND-}" = "" ]; then
        NARWHARF_CHECK_BOUND=1 exec timeout ${check.timeout} "$0"
      fi
      ${check.script}
    '';
  };
  checksOf = mode: folder: mapAttrs'
    (name: check: nameValuePair "narwharf/${folder}/${name}" { source = lib.getExe (checkOf name check); })
    (lib.filterAttrs (_: c: c.mode == mode) cfg.healthChecks);

  # The name of the server, without scheme, port and path.
  hostOf = url: lib.head (builtins.match "[a-z]+://(\\[[^]]*]|[^:/]*).*" (url + "/"));
  isURL = url: builtins.match "https?://[^/:]+.*" url != null;
in
{
  options.services.narwharf-agent = {
    enable = mkEnableOption "the Narwharf agent, which makes this host follow a channel";

    package = mkOption {
      type = lib.types.package;
      default = pkgs.narwharf or (pkgs.callPackage ../package.nix { });
      defaultText = literalExpression "pkgs.narwharf, or built from the source of this module";
      description = "The package with bin/narwharf.";
    };

    tokenFile = mkOption {
      type = null' secretFile;
      default = null;
      example = "/run/secrets/narwharf-token";
      description = ''
        A file with the host's token (`token_file`). The agent reads it again after each 401, so another token needs no restart.
        It has to outlive a boot, or be made before the agent starts.
      '';
    };

    joinTokenFile = mkOption {
      type = null' secretFile;
      default = null;
      example = "/var/lib/secrets/narwharf-join";
      description = "A file with a join token (`join_token_file`), which the agent exchanges once for a token of its own, and removes.";
    };

    environmentFile = mkOption {
      type = null' secretFile;
      default = null;
      example = "/run/secrets/narwharf-proxy";
      description = "A file with variables for the agent, as `HTTPS_PROXY=http://user:password@proxy:3128`. When it changes the agent starts anew.";
    };

    healthChecks = mkOption {
      default = { };
      description = ''
        Programs that tell by their exit status whether this system is well. They come with the system, so a release brings
        its own. Each is a shell application with a PATH of its own: what it calls has to be in `path`.
      '';
      example = literalExpression ''{ web = { script = "curl -fsS http://localhost/"; path = [ pkgs.curl ]; }; }'';
      type = lib.types.attrsOf (lib.types.submodule {
        options = {
          script = mkOption {
            type = lib.types.lines;
            description = "The text of the check; it ends with the first command that fails.";
          };
          path = mkOption {
            type = listOf lib.types.package;
            default = [ ];
            description = "Packages whose programs it calls, beside coreutils.";
          };
          mode = mkOption {
            type = lib.types.enum [ "enforce" "observe" "off" ];
            default = "enforce";
            description = "`enforce`: a system that fails it is gone back from. `observe`: it is reported and decides nothing.";
          };
          timeout = mkOption {
            type = lib.types.strMatching "([1-9]|[12][0-9])s";
            default = "20s";
            description = "After which time it has failed, 29s at most: it is asked again and again.";
          };
        };
      });
    };

    metrics = {
      enable = mkEnableOption "metrics of the agent for node_exporter, whose textfile collector is set up if it is enabled here";
      directory = mkOption {
        type = str;
        default = "/run/narwharf-agent";
        description = "The folder that node_exporter's textfile collector reads. Name yours if there is one already.";
      };
    };

    checkConfig = mkOption {
      type = lib.types.bool;
      default = true;
      description = "Let the program check the configuration while the system is built.";
    };

    settings = mkOption {
      default = { };
      description = "agent.toml. docs/agent.md explains every key; one that there is not is refused.";
      type = lib.types.submodule {
        freeformType = (pkgs.formats.toml { }).type;
        options = {
          server = mkOption {
            type = lib.types.nonEmptyListOf str;
            description = "Base URLs of the server, tried in turn.";
            example = [ "https://cache.example.org" ];
          };
          channel = mkOption {
            type = str;
            description = "The channel to follow.";
            example = "web";
          };
          origin = mkOption {
            type = str;
            default = "${hostOf (lib.head cfg.settings.server)}/${cfg.settings.channel}";
            defaultText = literalExpression ''the host name of the first server, a slash, and the channel'';
            description = "What the releases of the channel give as their origin; `narwharf promote` prints it.";
            example = "cache.example.org/web";
          };
          host = mkOption {
            type = null' str;
            default = if config.networking.hostName == "" then null else config.networking.hostName;
            defaultText = literalExpression "config.networking.hostName";
            description = "This host's name towards the server. null: as the machine or its identity says.";
          };
          target = mkOption {
            type = null' str;
            default = cfg.settings.host;
            defaultText = literalExpression "settings.host";
            description = "Whose entry of a release this host takes.";
          };
          keys = mkOption {
            type = lib.types.nonEmptyListOf str;
            description = "Public keys of those who may promote.";
            example = [ "alice-1:AbCd…=" ];
          };
          threshold = mkOption {
            type = lib.types.ints.positive;
            default = 1;
            description = "How many of `keys` must have signed a release.";
          };
          content_keys = mkOption {
            type = listOf str;
            default = [ ];
            description = "Public keys whose signatures make a store path good: CI's and cache.nixos.org's, not the server's.";
          };
          trust = mkOption {
            type = lib.types.enum [ "promoter" "server" ];
            default = "promoter";
            description = "`server`: signatures by `server_keys` make a store path good, too.";
          };
          server_keys = mkOption {
            type = listOf str;
            default = [ ];
            description = "With trust = \"server\": public keys of the cache.";
          };
          probation.minimum = mkOption {
            type = null' duration;
            default = null;
            description = "How long a new system is watched at least; 10s by default.";
          };
          probation.confirm_timeout = mkOption {
            type = null' duration;
            default = null;
            description = "After how long without the server a new system is judged; 120s by default.";
          };
          reboot.allow = mkOption {
            type = null' (lib.types.enum [ "server" "always" "never" ]);
            default = null;
            description = "Who may reboot the host for a release: the server (the default), the agent itself, or people alone.";
          };
          reboot.windows = mkOption {
            type = null' (listOf lib.types.raw);
            default = null;
            example = [ "Sat,Sun 02:00-04:00 Europe/Berlin" ];
            description = "When it may be rebooted; always by default.";
          };
          reboot.kexec = mkOption {
            type = null' lib.types.bool;
            default = null;
            description = "Let the new kernel take over without the firmware, where that is possible (kexec).";
          };
          drift.action = mkOption {
            type = null' (lib.types.enum [ "leave" "return" ]);
            default = null;
            description = "What a host does that a person switched: `leave` it so until the next release (the default), or `return`.";
          };
          directives.obey = mkOption {
            type = null' (lib.types.enum [ "limited" "never" ]);
            default = null;
            description = "Whether the server may ask, unsigned, for the way back or another try; `limited` by default.";
          };
        };
      };
    };
  };

  config = mkIf cfg.enable {
    assertions =
      common.assertions "agent" "${where}.settings" cfg.settings
      ++ common.secretTexts "${where}.healthChecks" (lib.mapAttrs (_: c: c.script) cfg.healthChecks)
      ++ [
        {
          assertion = cfg.settings.trust == "server" || cfg.settings.content_keys != [ ];
          message = ''${where}.settings.content_keys is empty: with trust = "promoter" store paths need a signature by one, such as CI's and cache.nixos.org's'';
        }
        {
          assertion = cfg.settings.trust == "promoter" || cfg.settings.server_keys ++ cfg.settings.content_keys != [ ];
          message = ''${where}.settings.server_keys is empty: with trust = "server" they are the public keys of the cache'';
        }
        {
          assertion = cfg.settings.trust == "server" || cfg.settings.server_keys == [ ];
          message = ''${where}.settings.server_keys are not believed with trust = "promoter": take them out, or set trust = "server"'';
        }
        {
          assertion = cfg.settings.threshold <= lib.length cfg.settings.keys;
          message = "${where}.settings.threshold: ${toString cfg.settings.threshold} of ${toString (lib.length cfg.settings.keys)} keys cannot be";
        }
        {
          assertion = lib.all isURL cfg.settings.server;
          message = "${where}.settings.server: write it as https://cache.example.org";
        }
        {
          assertion = config.system.switch.enable;
          message = "${where} switches this host to new systems: system.switch.enable must not be false";
        }
        {
          assertion = !(cfg.settings ? identity) || cfg.tokenFile == null && cfg.joinTokenFile == null;
          message = "${where}: settings.identity and tokenFile, or joinTokenFile, are two answers to who the host is: leave one out";
        }
      ]
      ++ mapAttrsToList
        (name: _: {
          assertion = builtins.match "[a-zA-Z0-9][a-zA-Z0-9._-]*" name != null;
          message = "${where}.healthChecks: ${name} is no file name";
        })
        cfg.healthChecks;

    warnings =
      optional (config.system.autoUpgrade.enable or false) "${where}: system.autoUpgrade switches this host, too, and the agent then finds it drifted. Turn one of them off."
      ++ optional (config.services.comin.enable or false) "${where}: services.comin switches this host, too, and the agent then finds it drifted. Turn one of them off.";

    environment.systemPackages = [ cfg.package ]; # sw/bin/narwharf: the agent that confirms a new system

    environment.etc = { "narwharf/agent.toml".source = configFile; }
      // checksOf "enforce" "health.d"
      // checksOf "observe" "health.observe.d";

    systemd.services.narwharf-agent = {
      description = "Narwharf agent";
      documentation = [ "man:narwharf-agent(1)" ];
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
      # For the agent, for hooks and for [[check]] in settings; healthChecks have their own.
      path = [ config.nix.package config.systemd.package pkgs.bash pkgs.coreutils pkgs.curl pkgs.util-linux ]
        ++ optional (settings.reboot.kexec or false) pkgs.kexec-tools;
      # The unit names the file itself, so that a changed one changes the unit.
      restartTriggers = [ configFile ];
      serviceConfig = {
        ExecStart = "${lib.getExe' cfg.package "narwharf"} agent run --config /etc/narwharf/agent.toml";
        EnvironmentFile = mkIf (cfg.environmentFile != null) cfg.environmentFile;
        Restart = "always";
        RestartSec = 2;
        OOMScoreAdjust = -500;

        # It switches systems, and runs hooks and checks that may do anything: what would hinder those is left out.
        # docs/design/051-the-agents-unit.md says what was tried.
        KeyringMode = "private";
        LockPersonality = true;
        ProtectClock = true;
        ProtectHostname = true;
        RestrictRealtime = true;
        SystemCallArchitectures = "native";
        UMask = "0077";
      }
      // lib.optionalAttrs (cfg.metrics.enable && cfg.metrics.directory == "/run/narwharf-agent") {
        RuntimeDirectory = "narwharf-agent";
        RuntimeDirectoryMode = "0755";
        RuntimeDirectoryPreserve = "yes";
      };
    };

    services.prometheus.exporters.node = mkIf cfg.metrics.enable {
      enabledCollectors = [ "textfile" ];
      extraFlags = optional (cfg.metrics.directory == "/run/narwharf-agent") "--collector.textfile.directory=${cfg.metrics.directory}";
    };

    # A test machine of this system must not act as this host.
    virtualisation.vmVariant.services.narwharf-agent.enable = lib.mkForce false;
    virtualisation.vmVariantWithBootLoader.services.narwharf-agent.enable = lib.mkForce false;
  };
}
