{
  description = "A Nix binary cache whose channels are deploy targets";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      # On macOS it is the command line alone.
      systems = [ "x86_64-linux" "aarch64-linux" "aarch64-darwin" ];
      each = of: f: lib.genAttrs of (system: f nixpkgs.legacyPackages.${system});
      linux = lib.filter (lib.hasSuffix "-linux") systems;

      version = self.shortRev or self.dirtyShortRev or "dev";
      package = pkgs: pkgs.callPackage ./nixos/package.nix { inherit version; };

      # A module with the package of this flake.
      withPackage = file: service: { pkgs, ... }: {
        _file = file;
        imports = [ file ];
        services.${service}.package = lib.mkDefault (package pkgs);
      };
    in
    {
      packages = each systems (pkgs: { default = package pkgs; narwharf = package pkgs; });

      overlays.default = final: _: { narwharf = package final; };

      nixosModules = {
        server = withPackage ./nixos/modules/server.nix "narwharf";
        agent = withPackage ./nixos/modules/agent.nix "narwharf-agent";
        client = withPackage ./nixos/modules/client.nix "narwharf-client";
        default.imports = with self.nixosModules; [ server agent client ];
      };

      lib = import ./nixos/lib.nix { inherit lib; narwharf = package; };

      apps = each systems (pkgs: { default = { type = "app"; program = lib.getExe (package pkgs); meta.description = "narwharf"; }; });

      checks = each linux (pkgs: {
        package = package pkgs;
        # On macOS machines of tests cannot be started.
      } // import ./nixos/tests { inherit pkgs; modules = self.nixosModules.default; });

      devShells = each systems (pkgs: {
        default = pkgs.mkShell { packages = with pkgs; [ go gopls golangci-lint shellcheck nixpkgs-fmt ]; };
      });

      templates = {
        cache = { path = ./nixos/templates/cache; description = "A binary cache on one NixOS machine"; };
        fleet = { path = ./nixos/templates/fleet; description = "A server, and hosts that follow its channel"; };
      };
    };
}
