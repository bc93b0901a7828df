# What the hosts of the channel web have in common.
{ pkgs, ... }: {
  services.narwharf-agent = {
    enable = true;
    tokenFile = "/var/lib/secrets/narwharf-token"; # copy /var/lib/narwharf/tokens.d/hosts there
    settings = {
      server = [ "https://cache.example.org" ];
      channel = "web";
      # narwharf key generate you-1 --out ~/.config/narwharf/you.sec prints yours.
      keys = [ "you-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
      # Whose builds are good: cache.nixos.org's, and those that you sign. With trust = "server"
      # and server_keys instead, whoever controls the server can give these hosts any bytes.
      content_keys = [ "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
    };
    healthChecks.web = { script = "curl -fsS -o /dev/null http://localhost/"; path = [ pkgs.curl ]; };
  };

  services.nginx.enable = true;
  services.nginx.virtualHosts.localhost.root = pkgs.writeTextDir "index.html" "hello";
}
