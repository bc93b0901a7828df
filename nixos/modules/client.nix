# A laptop, a builder, any machine that substitutes from a cache, and may upload what it builds.
#
#   services.narwharf-client = {
#     enable = true;
#     url = "https://cache.example.org";
#     publicKeys = [ "cache.example.org-1:…" ];
#   };
{ config, lib, pkgs, ... }:

let
  inherit (lib) literalExpression mkEnableOption mkIf mkOption;
  common = import ./settings.nix { inherit lib; };
  inherit (common.types) secretFile;
  cfg = config.services.narwharf-client;
  where = "services.narwharf-client";
in
{
  options.services.narwharf-client = {
    enable = mkEnableOption "substitution from a Narwharf cache";

    package = mkOption {
      type = lib.types.package;
      default = pkgs.narwharf or (pkgs.callPackage ../package.nix { });
      defaultText = literalExpression "pkgs.narwharf, or built from the source of this module";
      description = "The package with bin/narwharf.";
    };

    url = mkOption {
      type = lib.types.strMatching "https?://[^ ]+";
      example = "https://cache.example.org";
      description = "Where the cache is.";
    };

    publicKeys = mkOption {
      type = lib.types.nonEmptyListOf (lib.types.strMatching "[^:]+:[A-Za-z0-9+/]{43}=");
      example = [ "cache.example.org-1:AbCd…=" ];
      description = "Its public keys, as `URL/pubkey` has them: all that is signed by one is believed.";
    };

    netrcFile = mkOption {
      type = lib.types.nullOr secretFile;
      default = null;
      example = "/run/secrets/netrc";
      description = "A netrc with a token, for a cache that not everybody may read. Nix has one for all caches.";
    };

    autoUpload = {
      enable = mkEnableOption "uploads of what this machine builds. A build never waits for one; they are tried until they succeed, after a restart too, and until then garbage collection keeps the paths";
      url = mkOption {
        type = lib.types.strMatching "https?://[^ ]+";
        default = cfg.url;
        defaultText = literalExpression "config.services.narwharf-client.url";
        description = "Where to upload to.";
      };
      netrcFile = mkOption {
        type = lib.types.nullOr secretFile;
        default = cfg.netrcFile;
        defaultText = literalExpression "config.services.narwharf-client.netrcFile";
        description = "A netrc with a token that has the scope push.";
      };
    };
  };

  config = mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    nix.settings = {
      extra-substituters = [ cfg.url ];
      extra-trusted-public-keys = cfg.publicKeys;
      netrc-file = mkIf (cfg.netrcFile != null) cfg.netrcFile;
      post-build-hook = mkIf cfg.autoUpload.enable (pkgs.writeShellScript "narwharf-upload-hook" ''
        exec ${lib.getExe' cfg.package "narwharf"} upload-hook --queue /var/lib/narwharf-upload
      '');
    };

    assertions = [
      {
        assertion = !cfg.autoUpload.enable || cfg.autoUpload.netrcFile != null;
        message = "${where}.autoUpload.netrcFile is missing: uploading needs a token with the scope push, in a netrc";
      }
      {
        assertion = !cfg.autoUpload.enable || config.nix.enable;
        message = "${where}.autoUpload is a hook of nix-daemon: it needs nix.enable";
      }
    ] ++ common.secretTexts where { inherit (cfg) url; };

    systemd.services.narwharf-upload = mkIf cfg.autoUpload.enable {
      description = "Uploads of what was built here";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" "nix-daemon.socket" ];
      environment = config.networking.proxy.envVars // { NIX_REMOTE = "daemon"; HOME = "/var/lib/narwharf-upload"; };
      path = [ config.nix.package ];
      serviceConfig = {
        ExecStart = "${lib.getExe' cfg.package "narwharf"} upload-hook run --queue /var/lib/narwharf-upload --to ${lib.escapeShellArg cfg.autoUpload.url}"
          + " --netrc-file %d/netrc";
        LoadCredential = [ "netrc:${toString cfg.autoUpload.netrcFile}" ];
        StateDirectory = "narwharf-upload";
        StateDirectoryMode = "0700";
        # What was sent is no root any more.
        ReadWritePaths = [ "/nix/var/nix/gcroots" ];
        Restart = "always";
        RestartSec = 10;
      }
      # As root, since nix-daemon's hook, root too, fills the queue; but it may do little more than the server; what runs is Nix.
      // removeAttrs (import ./sandbox.nix) [ "PrivateUsers" "MemoryDenyWriteExecute" "SystemCallFilter" "SystemCallErrorNumber" ];
    };
  };
}
