# The machines of the VM tests.
{ modules }:

let keys = import ./keys.nix; in
rec {
  server = {
    imports = [ modules ];
    environment.etc."cache.sec" = { text = keys.cache.secret; mode = "0400"; };
    services.narwharf = {
      enable = true;
      signKeyPaths = [ "/etc/cache.sec" ];
      openFirewall = true;
      tokens.ci.scopes = [ "push" "promote:web" "operate" "admin" ];
      tokens.hosts.scopes = [ "follow:web" ];
      settings.listen = [ "0.0.0.0:8080" ];
    };
  };

  # What a host of the channel web has. The specialisations are systems that are promoted later.
  host = { pkgs, ... }: {
    imports = [ modules ];
    system.switch.enable = true;
    services.narwharf-agent = {
      enable = true;
      tokenFile = "/var/lib/secrets/token";
      settings = {
        server = [ "http://cache:8080" ];
        channel = "web";
        keys = [ keys.alice.public ];
        trust = "server";
        server_keys = [ keys.cache.public ];
        probation = { minimum = "2s"; settle = "2s"; confirm_timeout = "20s"; };
      };
    };
    specialisation.next.configuration = {
      environment.etc.release.text = "next";
      services.narwharf-agent.healthChecks.release = { script = "grep -q next /etc/release"; path = [ pkgs.gnugrep ]; };
    };
    specialisation.ill.configuration = {
      environment.etc.release.text = "ill";
      services.narwharf-agent.healthChecks.release.script = "false";
    };
  };

  # Where CI runs: it has the systems, and uploads them.
  ci = systems: { pkgs, ... }: {
    imports = [ modules ];
    environment.systemPackages = [ (pkgs.narwharf or (pkgs.callPackage ../package.nix { })) ];
    environment.etc."alice.sec" = { text = keys.alice.secret; mode = "0400"; };
    nix.settings.experimental-features = [ "nix-command" ];
    virtualisation.additionalPaths = systems;
  };

  # Words that all scripts begin with.
  script = ''
    def token(name):
        return cache.succeed(f"cat /var/lib/narwharf/tokens.d/{name}").strip()

    def hand(machine, path, text):
        machine.succeed(f"mkdir -p $(dirname {path}) && umask 077 && printf '%s\n' '{text}' > {path}")

    start_all()
    cache.wait_for_unit("narwharf.service")
    cache.wait_for_open_port(8080)
    cache.wait_for_file("/var/lib/narwharf/tokens.d/hosts")
    hand(ci, "/root/token", token("ci"))
    hand(ci, "/root/netrc", "machine cache login ci password " + token("ci"))

    flags = "--server http://cache:8080 --token-file /root/token"
    promoter = flags + " --key /etc/alice.sec --origin cache/web"

    def upload(path):
        ci.succeed(f"XDG_CACHE_HOME=$(mktemp -d) nix copy --netrc-file /root/netrc --to 'http://cache:8080?compression=zstd' {path}")
  '';
}
