{
  # This machine's own: nixos-generate-config --show-hardware-config.
  fileSystems."/" = { device = "/dev/disk/by-label/nixos"; fsType = "ext4"; };
  boot.loader.systemd-boot.enable = true;
  networking.hostName = "cache";
  system.stateVersion = "26.05";

  services.narwharf = {
    enable = true;
    generateKey = "cache.example.org-1"; # its public half: /var/lib/narwharf/keys/cache.example.org-1.pub
    nginx = { enable = true; domain = "cache.example.org"; };
    openFirewall = true;
    # In /var/lib/narwharf/tokens.d/ci, after the first start.
    tokens.ci.scopes = [ "push" ];
    settings.retention.max_size = "200GiB";
  };
  security.acme = { acceptTerms = true; defaults.email = "you@example.org"; };
}
