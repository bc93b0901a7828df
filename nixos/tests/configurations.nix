# The table: configurations that must evaluate, and what Nix has to say of those that must
# not. A `throws` ends the evaluation itself (a wrong type); a `refuses` is an assertion.
{ lib }:

let
  key = "alice-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
  ci = "ci-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
  token = "nwt_0123456789_" + lib.concatStrings (lib.genList (_: "a") 59);
  agentWith = more: {
    services.narwharf-agent = lib.recursiveUpdate
      {
        enable = true;
        tokenFile = "/var/lib/secrets/narwharf-token";
        settings = { server = [ "https://cache.example.org" ]; channel = "web"; keys = [ key ]; content_keys = [ ci ]; };
      }
      more;
  };
  settings = more: agentWith { settings = more; };
  serverWith = more: { services.narwharf = lib.recursiveUpdate { enable = true; generateKey = "cache.example.org-1"; } more; };
  acme = { security.acme = { acceptTerms = true; defaults.email = "ops@example.org"; }; };
in
{
  # What must evaluate.
  nothing.module = { };
  server.module = serverWith { };
  server-nginx.module = lib.recursiveUpdate acme (serverWith {
    nginx = { enable = true; domain = "cache.example.org"; };
    openFirewall = true;
    tokens.ci.scopes = [ "push" "promote:web" ];
    tokens.hosts = { scopes = [ "follow:web" ]; host = "web-1"; expires = "90d"; };
  });
  server-tls.module = serverWith {
    openFirewall = true;
    generateKey = null;
    signKeyPaths = [ "/run/secrets/cache.sec" ];
    settings = {
      listen = [ "0.0.0.0:443" "unix:/run/narwharf/http.sock" ];
      public_url = "https://cache.example.org";
      tls = { cert = "/var/lib/acme/cache.example.org/fullchain.pem"; key = "/var/lib/acme/cache.example.org/key.pem"; };
      limits.stop = "90s";
      retention = { max_size = "500GiB"; min_free = "20GiB"; grace = "14d"; };
      access.anonymous = [ ];
      access.oidc = [{ name = "github"; issuer = "https://token.actions.githubusercontent.com"; rules = [{ name = "main"; claims.repository_id = "456"; scopes = [ "push" ]; ttl = "1h"; }]; }];
    };
  };
  server-store.module = serverWith {
    user = null;
    generateKey = null;
    signKeyPaths = [ "/etc/secrets/cache.sec" ];
    settings = { listen = [ "0.0.0.0:80" "127.0.0.1:8080" ]; cache.serve_store = true; };
  };
  server-elsewhere.module = serverWith { user = "cache"; group = "cache"; settings.data_dir = "/srv/cache"; };
  server-instances.module = lib.recursiveUpdate acme (serverWith {
    nginx = { enable = true; domain = "cache.example.org"; };
    instances.pr = { enable = true; generateKey = "pr.example.org-1"; nginx = { enable = true; domain = "pr.example.org"; }; tokens.ci.scopes = [ "push" ]; };
  });
  instance-alone.module.services.narwharf.instances.pr = { enable = true; generateKey = "pr.example.org-1"; };
  agent.module = agentWith { };
  agent-whole.module = agentWith {
    tokenFile = null;
    joinTokenFile = "/var/lib/secrets/join";
    environmentFile = "/run/secrets/proxy";
    metrics.enable = true;
    healthChecks = {
      web.script = "curl -fsS http://localhost/";
      look = { script = "test -e /run/look"; mode = "observe"; timeout = "5s"; };
      later = { script = "false"; mode = "off"; };
    };
    settings = {
      server = [ "https://cache.example.org:8443" "http://10.0.0.1:8080" ];
      threshold = 1;
      probation = { minimum = "1m"; settle = "20s"; ignore_units = [ "backup-*.service" ]; };
      reboot = { allow = "always"; kexec = true; windows = [ "Sat,Sun 02:00-04:00 Europe/Berlin" ]; };
      drift.action = "return";
      hooks.pre_switch = [ "/run/current-system/sw/bin/drain" "--wait" ];
      check = [{ name = "ready"; http = "http://127.0.0.1:8080/readyz"; timeout = "5s"; }];
      download = { rate = "4M"; jitter = "1m"; };
    };
  };
  agent-server-keys.module = agentWith { settings = { content_keys = [ ]; trust = "server"; server_keys = [ ci ]; }; };
  agent-identity.module = agentWith { tokenFile = null; settings = { identity.kind = "ssh"; }; };
  agent-exporter.module = lib.recursiveUpdate (agentWith { metrics.enable = true; }) { services.prometheus.exporters.node.enable = true; };
  agent-autoupgrade = { module = lib.recursiveUpdate (agentWith { }) { system.autoUpgrade.enable = true; }; warns = "system.autoUpgrade switches this host, too"; };
  agent-comin = {
    module.imports = [ (agentWith { }) { options.services.comin.enable = lib.mkOption { default = true; }; } ];
    warns = "services.comin switches this host, too";
  };
  both.module = lib.recursiveUpdate (serverWith { }) (agentWith { settings.server = [ "http://127.0.0.1:8080" ]; settings.origin = "cache.example.org/web"; });
  client.module.services.narwharf-client = { enable = true; url = "https://cache.example.org"; publicKeys = [ ci ]; };
  client-uploads.module.services.narwharf-client = {
    enable = true;
    url = "https://cache.example.org";
    publicKeys = [ ci ];
    netrcFile = "/run/secrets/netrc";
    autoUpload.enable = true;
  };

  agent-nameless.module = lib.recursiveUpdate (agentWith { }) { networking.hostName = ""; };

  # docs/examples.
  example-paranoid.module = ../../docs/examples/paranoid.nix;
  example-autoscaled.module = ../../docs/examples/autoscaled/host.nix;
  example-drained.module = ../../docs/examples/drained.nix;
  example-blue.module = import ../../docs/examples/blue-green.nix "blue";
  example-green.module = import ../../docs/examples/blue-green.nix "green";
  example-monitoring.module = ../../docs/examples/monitoring.nix;
  example-image.module = ../../docs/examples/image.nix;

  # What must not.
  no-content-key = { module = settings { content_keys = [ ]; }; refuses = ''content_keys is empty: with trust = "promoter"''; };
  trust = { module = settings { trust = "sever"; }; throws = ''is not of type `one of "promoter", "server"' ''; };
  threshold-text = { module = settings { threshold = "2"; }; throws = "settings.threshold' is not of type `positive integer"; };
  threshold-high = { module = settings { threshold = 2; }; refuses = "2 of 1 keys cannot be"; };
  unknown-key = { module = settings { chanel = "web"; }; refuses = "settings.chanel is not a key that narwharf knows: did you mean channel?"; };
  unknown-section-key = { module = settings { probation.minimun = "10s"; }; refuses = "settings.probation.minimun is not a key that narwharf knows: did you mean minimum?"; };
  unknown-option = { module = agentWith { tokenfile = "/run/t"; }; throws = "The option `services.narwharf-agent.tokenfile' does not exist"; };
  duration-typed = { module = settings { probation.minimum = "10"; }; throws = "duration like"; };
  duration = { module = settings { hooks.timeout = "5 minutes"; }; refuses = ''settings.hooks.timeout: "5 minutes" is not a duration like''; };
  duration-integer = { module = settings { hooks.timeout = 300; }; refuses = ''settings.hooks.timeout: 300 has no unit: write "300s"''; };
  token-text = { module = settings { nix_options = [ token ]; }; refuses = "settings.nix_options[0] has a token in it"; };
  token-as-file = { module = agentWith { tokenFile = token; }; throws = "outside of the Nix store"; };
  token-literal = { module = agentWith { tokenFile = ./eval.nix; }; throws = "outside of the Nix store"; };
  token-setting-literal = { module = agentWith { tokenFile = null; settings.token_file = ./eval.nix; }; refuses = "settings.token_file: "; };
  token-stored = { module = agentWith { tokenFile = "${builtins.storeDir}/00000000000000000000000000000000-token"; }; throws = "outside of the Nix store"; };
  token-in-check = { module = agentWith { healthChecks.web.script = "curl -u x:${token} http://localhost"; }; refuses = "healthChecks.web has a token in it"; };
  secret-key = { module = serverWith { settings.signing.sign_cmd = [ "sign" ("k:" + lib.concatStrings (lib.genList (_: "A") 86) + "==") ]; }; refuses = "is a secret key"; };
  no-switch = { module = lib.recursiveUpdate (agentWith { }) { system.switch.enable = false; }; refuses = "system.switch.enable must not be false"; };
  no-channel = { module.services.narwharf-agent = { enable = true; settings = { server = [ "https://c" ]; keys = [ key ]; content_keys = [ ci ]; }; }; throws = "settings.channel' was accessed but has no value defined"; };
  no-keys = { module = settings { keys = [ ]; }; throws = "settings.keys' is not of type `non-empty"; };
  no-scheme = { module = settings { server = [ "cache.example.org" ]; origin = "c/web"; }; refuses = "write it as https://cache.example.org"; };
  two-identities = { module = agentWith { settings.identity.kind = "ssh"; }; refuses = "are two answers to who the host is"; };
  section = { module = settings { hooks = "drain"; }; refuses = "settings.hooks is a section"; };
  server-unknown = { module = serverWith { settings.cache.prioriti = 10; }; refuses = "services.narwharf.settings.cache.prioriti is not a key that narwharf knows: did you mean priority?"; };
  server-size = { module = serverWith { settings.cache.max_nar_size = "64GB"; }; refuses = ''settings.cache.max_nar_size: "64GB" is not a size''; };
  server-size-typed = { module = serverWith { settings.retention.max_size = "1.5TiB"; }; throws = "size like"; };
  server-duration = { module = serverWith { settings.retention.grace = "1 month"; }; refuses = "is not a duration like"; };
  server-list = { module = serverWith { settings.access.hosts = "cache"; }; refuses = "settings.access.hosts is a list"; };
  instance-shares = {
    module = serverWith { instances.pr = { enable = true; signKeyPaths = [ "/k" ]; settings.data_dir = "/var/lib/narwharf"; }; };
    refuses = "two instances have the same data_dir";
  };
  instance-key = { module = serverWith { instances.pr = { enable = true; generateKey = "cache.example.org-1"; }; }; refuses = "two instances have the same signing key"; };
  instance-unknown = { module = serverWith { instances.pr = { enable = true; generateKey = "pr-1"; settings.listn = [ ]; }; }; refuses = "services.narwharf.instances.pr.settings.listn is not a key"; };
  upload-without-token = { module.services.narwharf-client = { enable = true; url = "https://c.example.org"; publicKeys = [ ci ]; autoUpload.enable = true; }; refuses = "autoUpload.netrcFile is missing"; };
  client-url = { module.services.narwharf-client = { enable = true; url = "c.example.org"; publicKeys = [ ci ]; }; throws = "services.narwharf-client.url' is not of type"; };
}
