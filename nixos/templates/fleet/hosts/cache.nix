{
  services.narwharf = {
    enable = true;
    generateKey = "cache.example.org-1"; # its public half: /var/lib/narwharf/keys/cache.example.org-1.pub
    nginx = { enable = true; domain = "cache.example.org"; };
    openFirewall = true;
    # In /var/lib/narwharf/tokens.d/, after the first start.
    tokens.you.scopes = [ "push" "promote:web" ];
    tokens.hosts.scopes = [ "follow:web" ];
  };
  security.acme = { acceptTerms = true; defaults.email = "you@example.org"; };
}
