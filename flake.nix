# The package for people with Nix. It has not been built yet: nobody has run it
# against a nixpkgs, so the hash of the dependencies is still to be filled in with
# the one that the first `nix build` prints.
{
  description = "A Nix binary cache whose channels are deploy targets";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = f: nixpkgs.lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
    in
    {
      packages = each (pkgs: {
        default = pkgs.buildGoModule {
          pname = "narwharf";
          version = self.shortRev or "dev";
          src = self;
          subPackages = [ "cmd/narwharf" ];
          vendorHash = pkgs.lib.fakeHash;
          env.CGO_ENABLED = 0;
          ldflags = [ "-X main.version=${self.shortRev or "dev"}" ];
          # They need the network, Nix clients and mount namespaces: `make test`.
          doCheck = false;
          meta = {
            description = "A Nix binary cache whose channels are deploy targets";
            license = pkgs.lib.licenses.mit;
            mainProgram = "narwharf";
          };
        };
      });
    };
}
