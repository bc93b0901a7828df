# The options of one server: those of services.narwharf, and of each of its instances.
{ lib, pkgs, types, name, unit, defaultPackage }:

let
  inherit (lib) literalExpression mkEnableOption mkOption;
  str = lib.types.str;
  listOf = lib.types.listOf;
  null' = type: lib.types.nullOr type;
in
{
  enable = mkEnableOption "Narwharf, a Nix binary cache whose channels are deploy targets";

  package = mkOption {
    type = lib.types.package;
    default = defaultPackage;
    defaultText = literalExpression "pkgs.narwharf, or built from the source of this module";
    description = "The package with bin/narwharf.";
  };

  user = mkOption {
    type = null' str;
    default = unit;
    description = "Whose the service is. The default is made. `null`: a user that systemd makes while it runs (DynamicUser).";
  };

  group = mkOption {
    type = str;
    default = unit;
    description = "The group of the service.";
  };

  socketActivation = mkOption {
    type = lib.types.bool;
    default = true;
    description = ''
      systemd listens on the addresses of `settings.listen`, ports below 1024 too, and keeps them while the server
      is started anew: nobody is refused. When `listen` changes, `systemctl restart ${unit}.socket ${unit}` takes the new ones.
    '';
  };

  signKeyPaths = mkOption {
    type = listOf types.secretFile;
    default = [ ];
    example = [ "/run/secrets/cache.example.org-1.sec" ];
    description = ''
      Files with secret keys in Nix's format; each signs every path. They are read as root when the service starts
      (LoadCredential), so other keys need `systemctl restart ${unit}`.
    '';
  };

  generateKey = mkOption {
    type = null' (lib.types.strMatching "[^:[:space:]]+");
    default = null;
    example = "cache.example.org-1";
    description = ''
      The name of a signing key that is made at the first start, in `keys/` of `data_dir`, where a backup takes it along;
      `NAME.pub` beside it is what clients trust. Without the data another key would be made, which no client knows.
    '';
  };

  openFirewall = mkOption {
    type = lib.types.bool;
    default = false;
    description = "Open the ports of `settings.listen`, or those of nginx, in the firewall.";
  };

  nginx = {
    enable = mkEnableOption "nginx in front, with a certificate by ACME";
    domain = mkOption {
      type = str;
      example = "cache.example.org";
      description = "The name of the virtual host. `services.nginx.virtualHosts` has its other options.";
    };
    tls = mkOption {
      type = lib.types.bool;
      default = true;
      description = "Take a certificate by ACME (`security.acme` needs `acceptTerms` and an address), and send http to https.";
    };
  };

  tokens = mkOption {
    default = { };
    example = literalExpression ''{ ci.scopes = [ "push" "promote:web" ]; hosts.scopes = [ "follow:web" ]; }'';
    description = ''
      Tokens that are made when the server starts, each once, in `tokens.d/NAME` of `data_dir`, for root and the service to read. At the
      next start one that is not here any more is revoked, and one that says something else here, or whose file is gone, is revoked and
      made anew. Tokens that were made by `narwharf token new` are left alone.
    '';
    type = lib.types.attrsOf (lib.types.submodule {
      options = {
        scopes = mkOption {
          type = lib.types.nonEmptyListOf str;
          description = "What the token gives; `narwharf token new --help` lists scopes.";
        };
        host = mkOption {
          type = null' str;
          default = null;
          description = "The one host that the token can act as.";
        };
        expires = mkOption {
          type = null' types.duration;
          default = null;
          description = "After which time it is void; it is not made anew by itself.";
        };
      };
    });
  };

  checkConfig = mkOption {
    type = lib.types.bool;
    default = true;
    description = "Let the program check the configuration while the system is built.";
  };

  settings = mkOption {
    default = { };
    description = "config.toml. docs/config.md explains every key; one that there is not is refused.";
    type = lib.types.submodule {
      freeformType = (pkgs.formats.toml { }).type;
      options = {
        listen = mkOption {
          type = lib.types.nonEmptyListOf str;
          description = "Where to serve: host:port and unix:PATH.";
          defaultText = literalExpression ''[ "127.0.0.1:8080" ], with nginx a unix socket in /run; of an instance a unix socket'';
        };
        data_dir = mkOption {
          type = str;
          default = "/var/lib/${unit}";
          description = "The folder that holds what is uploaded, the database and the admin socket. One elsewhere than below /var/lib has to be there, and the user's.";
        };
        public_url = mkOption {
          type = null' str;
          default = null;
          example = "https://cache.example.org";
          description = "Where clients reach this cache. With nginx that is the domain.";
        };
        cache.serve_store = mkOption {
          type = lib.types.bool;
          default = false;
          description = "Serve the Nix store of this machine beside what is uploaded. Whoever may read the cache may read every path in it.";
        };
        cache.priority = mkOption {
          type = null' lib.types.ints.unsigned;
          default = null;
          description = "What clients compare caches by: lower is asked first. cache.nixos.org has 40, and 30 is the default.";
        };
        access.anonymous = mkOption {
          type = null' (listOf str);
          default = null;
          example = [ ];
          description = "What requests without a token may do. By default `pull`: everybody who reaches it may read.";
        };
        retention.max_size = mkOption {
          type = null' types.size;
          default = null;
          example = "500GiB";
          description = "Above this many bytes of uploaded NARs the least recently used go.";
        };
        retention.min_free = mkOption {
          type = null' types.size;
          default = null;
          example = "20GiB";
          description = "With less room than this on the disk more goes.";
        };
        limits.stop = mkOption {
          type = null' types.duration;
          default = null;
          description = "How long uploads may take to finish when the service stops; 5m by default.";
        };
      };
    };
  };
}
