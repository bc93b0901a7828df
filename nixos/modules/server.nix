# The server as a NixOS module.
#
#   services.narwharf = {
#     enable = true;
#     generateKey = "cache.example.org-1";
#     nginx = { enable = true; domain = "cache.example.org"; };
#     openFirewall = true;
#     tokens.ci.scopes = [ "push" "promote:web" ];
#   };
#
# A cache is one trust zone: who may push to it is believed by all who read it. Pull requests
# push to another: services.narwharf.instances.pr, with a user, data, socket and key of its own.
{ config, lib, pkgs, ... }:

let
  inherit (lib) concatLists concatMap escapeShellArg hasPrefix imap0 mapAttrs' mapAttrsToList mkDefault mkIf mkMerge mkOption nameValuePair optional optionalAttrs removePrefix;
  common = import ./settings.nix { inherit lib; };
  defaultPackage = pkgs.narwharf or (pkgs.callPackage ../package.nix { });

  optionsOf = name: import ./instance.nix {
    inherit lib pkgs name defaultPackage;
    inherit (common) types;
    unit = unitOf name;
  };
  unitOf = name: if name == "" then "narwharf" else "narwharf-${name}";
  whereOf = name: "services.narwharf" + lib.optionalString (name != "") ".instances.${name}";

  cfg = config.services.narwharf;
  instances = lib.filterAttrs (_: i: i.enable) ({ "" = cfg; } // cfg.instances);
  each = f: mapAttrsToList f instances;

  credential = unit: name: "/run/credentials/${unit}.service/${name}";
  keyFile = i: "${i.settings.data_dir}/keys/${i.generateKey}.sec";
  signKeys = i: imap0 (n: path: { name = "sign-${toString n}"; inherit path; }) i.signKeyPaths;

  settingsOf = name: i: lib.recursiveUpdate i.settings {
    signing = (i.settings.signing or { }) // {
      secret_key_files = (i.settings.signing.secret_key_files or [ ])
        ++ map (k: credential (unitOf name) k.name) (signKeys i)
        ++ optional (i.generateKey != null) (keyFile i);
    };
  };

  fileOf = name: i: common.configFile {
    inherit pkgs;
    inherit (i) package;
    file = "server";
    name = "${unitOf name}.toml";
    settings = settingsOf name i;
    check = i.checkConfig;
  };

  # What systemd can listen on: it knows no host names, which the server opens by itself.
  stream = address:
    let
      parts = builtins.match "(.*):([0-9]+)" address;
      host = lib.head parts;
    in
    if hasPrefix "unix:" address then removePrefix "unix:" address
    else if parts == null then null
    else if host == "" then lib.last parts
    else if builtins.match "[0-9.]+|\\[.*]" host != null then address
    else null;
  streams = i: lib.filter (s: s != null) (map stream i.settings.listen);
  isPort = address: ! hasPrefix "unix:" address;
  ports = i: map (a: lib.toInt (lib.last (lib.splitString ":" a))) (lib.filter isPort i.settings.listen);

  inStateDirectory = i: hasPrefix "/var/lib/" i.settings.data_dir;

  # Also without tokens: those that were declared before end.
  declareTokens = name: i: pkgs.writeShellScript "${unitOf name}-tokens" ''
    exec ${lib.getExe' i.package "narwharf"} token declare - --config ${fileOf name i} --dir ${escapeShellArg "${i.settings.data_dir}/tokens.d"} <<'EOF'
    ${builtins.toJSON (lib.mapAttrs (_: common.withoutNull) i.tokens)}
    EOF
  '';

  makeKey = name: i: pkgs.writeShellScript "${unitOf name}-key" ''
    set -eu
    umask 077
    key=${escapeShellArg (keyFile i)}
    [ -e "$key" ] && exit
    ${pkgs.coreutils}/bin/mkdir -p "''${key%/*}"
    ${lib.getExe' i.package "narwharf"} key generate ${escapeShellArg i.generateKey} --out "$key" > "''${key%.sec}.pub"
  '';

  serviceOf = name: i: {
    description = "Narwharf, a Nix binary cache" + lib.optionalString (name != "") " (${name})";
    documentation = [ "man:narwharf(1)" ];
    wantedBy = [ "multi-user.target" ];
    wants = [ "network-online.target" ];
    after = [ "network-online.target" ] ++ optional i.socketActivation "${unitOf name}.socket";
    requires = optional i.socketActivation "${unitOf name}.socket";
    # A switch starts it anew in one step, after all else, and leaves its socket alone.
    stopIfChanged = false;
    unitConfig = optionalAttrs (!inStateDirectory i) { RequiresMountsFor = [ i.settings.data_dir ]; };

    serviceConfig = {
      Type = "notify";
      ExecStart = "${lib.getExe' i.package "narwharf"} serve --config ${fileOf name i}";
      ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
      Restart = "on-failure";
      RestartSec = 2;
      # From nothing the index is made of the files, however many.
      TimeoutStartSec = "infinity";
      WatchdogSec = "2min";
      # Uploads in flight come to their end.
      TimeoutStopSec = "${if i.settings.limits.stop == null then "5min" else i.settings.limits.stop} 60s";
      LimitNOFILE = 524288;
      LoadCredential = map (k: "${k.name}:${k.path}") (signKeys i);
    }
    // optionalAttrs i.socketActivation { Sockets = "${unitOf name}.socket"; }
    // optionalAttrs (i.generateKey != null) { ExecStartPre = makeKey name i; }
    // { ExecStartPost = declareTokens name i; }
    // (if i.user == null then { DynamicUser = true; } else { User = i.user; Group = i.group; })
    // (if inStateDirectory i
    then { StateDirectory = removePrefix "/var/lib/" i.settings.data_dir; StateDirectoryMode = "0750"; }
    else { ReadWritePaths = [ i.settings.data_dir ]; })
    // import ./sandbox.nix;
  };

  nginxOf = name: i: mkIf i.nginx.enable {
    enable = true;
    upstreams.${unitOf name} = {
      servers.${lib.head i.settings.listen} = { };
      extraConfig = "keepalive 64;";
    };
    virtualHosts.${i.nginx.domain} = {
      enableACME = mkDefault i.nginx.tls;
      forceSSL = mkDefault i.nginx.tls;
      locations."/" = {
        proxyPass = "http://${unitOf name}";
        recommendedProxySettings = false;
        # Bodies of any size go by as they come, hosts wait for minutes: docs/operating.md.
        extraConfig = ''
          proxy_http_version 1.1;
          proxy_set_header Connection "";
          proxy_set_header Host $http_host;
          proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
          proxy_set_header X-Forwarded-Proto $scheme;
          proxy_request_buffering off;
          client_max_body_size 0;
          proxy_buffers 8 64k;
          proxy_max_temp_file_size 0;
          proxy_read_timeout 15m;
          proxy_send_timeout 15m;
          gzip off;
        '';
      };
    };
  };

  defaultsOf = name: i: {
    listen = mkDefault (
      if i.nginx.enable || name != "" then [ "unix:/run/${unitOf name}/http.sock" ] else [ "127.0.0.1:8080" ]
    );
    # What comes by nginx comes from its clients; of a unix socket that is known.
    access.trusted_proxies = mkIf (i.nginx.enable && lib.any isPort i.settings.listen) (mkDefault [ "127.0.0.1" "::1" ]);
    public_url = mkIf i.nginx.enable (mkDefault "${if i.nginx.tls then "https" else "http"}://${i.nginx.domain}");
  };

  assertionsOf = name: i:
    let where = whereOf name; in
    common.assertions "server" "${where}.settings" i.settings
    ++ [
      {
        assertion = lib.all (p: p > 0 && p < 65536) (ports i);
        message = "${where}.settings.listen: there is no such port";
      }
    ];

  clash = what: of:
    let values = lib.flatten (each (_: of)); in
    { assertion = lib.allUnique values; message = "services.narwharf: two instances have the same ${what}; one cache is one trust zone, and shares nothing"; };
in
{
  options.services.narwharf = optionsOf "" // {
    instances = mkOption {
      default = { };
      description = ''
        More servers on this machine, each with a user, data, socket and key of its own, as unit `narwharf-NAME`: what pull requests
        upload belongs into another cache than what hosts run. They have the options of `services.narwharf`.
      '';
      example = lib.literalExpression ''{ pr = { enable = true; generateKey = "pr.cache.example.org-1"; nginx = { enable = true; domain = "pr.cache.example.org"; }; }; }'';
      type = lib.types.attrsOf (lib.types.submodule ({ name, config, ... }: {
        options = optionsOf name;
        config.settings = defaultsOf name config;
      }));
    };
  };

  config = mkMerge [
    { services.narwharf.settings = defaultsOf "" cfg; }
    (mkIf (instances != { }) {
      assertions = concatLists (each assertionsOf) ++ [
        (clash "data_dir" (i: i.settings.data_dir))
        (clash "address to listen on" (i: i.settings.listen))
        (clash "user" (i: optional (i.user != null) i.user))
        (clash "domain" (i: optional i.nginx.enable i.nginx.domain))
        (clash "signing key" (i: i.signKeyPaths ++ optional (i.generateKey != null) i.generateKey))
      ];

      warnings = concatLists (each (name: i:
        optional (i.signKeyPaths == [ ] && i.generateKey == null && !(i.settings ? signing)) ''
          ${whereOf name} has no signing key: clients can use only what was signed before it was uploaded.
          Set generateKey = "cache.example.org-1" or signKeyPaths.''));

      # By the names that commands look for; of the rest, --config.
      environment.etc = mapAttrs' (name: i: nameValuePair "narwharf/${if name == "" then "config" else name}.toml" { source = fileOf name i; }) instances;
      environment.systemPackages = lib.unique (each (_: i: i.package));

      systemd.services = mapAttrs' (name: i: nameValuePair (unitOf name) (serviceOf name i)) instances;
      systemd.sockets = mapAttrs'
        (name: i: nameValuePair (unitOf name) {
          description = "The addresses of Narwharf" + lib.optionalString (name != "") " (${name})";
          wantedBy = [ "sockets.target" ];
          listenStreams = streams i;
          socketConfig = {
            SocketMode = "0666"; # requests show tokens, as on TCP
            Backlog = 4096;
            NoDelay = true;
          };
        })
        (lib.filterAttrs (_: i: i.socketActivation && streams i != [ ]) instances);

      users.users = mapAttrs' (_: i: nameValuePair i.user { isSystemUser = true; inherit (i) group; home = i.settings.data_dir; })
        (lib.filterAttrs (name: i: i.user == unitOf name) instances);
      users.groups = mapAttrs' (_: i: nameValuePair i.group { })
        (lib.filterAttrs (name: i: i.group == unitOf name && i.user != null) instances);

      # Who may connect to the daemon where allowed-users is not everybody.
      nix.settings.extra-allowed-users = concatLists (each (name: i: optional i.settings.cache.serve_store (if i.user == null then unitOf name else i.user)));

      networking.firewall.allowedTCPPorts = concatLists (each (_: i:
        lib.optionals i.openFirewall (if i.nginx.enable then [ 80 ] ++ optional i.nginx.tls 443 else ports i)));

      services.nginx = mkMerge (each nginxOf);
    })
  ];
}
