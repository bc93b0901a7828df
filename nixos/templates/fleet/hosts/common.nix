{
  # This machine's own: nixos-generate-config --show-hardware-config.
  fileSystems."/" = { device = "/dev/disk/by-label/nixos"; fsType = "ext4"; };
  boot.loader.systemd-boot.enable = true;
  system.stateVersion = "26.05";
  services.openssh.enable = true;
}
