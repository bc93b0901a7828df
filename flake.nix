# The package for people with Nix. Nobody has built it against a nixpkgs yet; make
# vendor-hash computes what buildGoModule compares the dependencies with, and a test holds it.
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
          vendorHash = "sha256-eonyBVqhIOdprxuJE9clxrMNhMLZmHERIOngpbNjN6w=";
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
