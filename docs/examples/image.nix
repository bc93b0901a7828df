# A raw disk image with the agent inside, for machines that take an image and no user-data. All that is not the
# same on each is given at the first boot: the name by the network, the token by who writes the disk.
#
#   nix build .#nixosConfigurations.image.config.system.build.images.raw-efi
{ lib, ... }:

{
  networking.hostName = lib.mkForce "";
  services.narwharf-agent = {
    enable = true;
    # A join token in the image is good for as many machines as it was made for: narwharf token new --join web --uses 50
    joinTokenFile = "/var/lib/secrets/narwharf-join";
    settings = {
      server = [ "https://cache.example.org" ];
      channel = "web";
      host = null; # the machine's own name
      target = "web";
      keys = [ "deploy-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
      content_keys = [ "ci-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
    };
  };
}
