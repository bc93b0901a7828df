{
  description = "A server, and hosts that follow its channel";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  inputs.narwharf.url = "git+https://example.org/narwharf"; # where you have it from
  inputs.narwharf.inputs.nixpkgs.follows = "nixpkgs";

  outputs = { self, nixpkgs, narwharf }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      host = name: nixpkgs.lib.nixosSystem {
        inherit system;
        modules = [ narwharf.nixosModules.default ./hosts/common.nix (./hosts + "/${name}.nix") { networking.hostName = name; } ];
      };
    in
    {
      nixosConfigurations = nixpkgs.lib.genAttrs [ "cache" "web-1" "web-2" "web-3" ] host;

      # All systems of the channel web, which is what is promoted.
      packages.${system}.release = narwharf.lib.release pkgs
        { inherit (self.nixosConfigurations) web-1 web-2 web-3; };

      # nix run .#deploy
      apps.${system}.deploy = narwharf.lib.deployApp {
        inherit pkgs;
        channel = "web";
        installable = ".#release";
        server = "https://cache.example.org";
        # key = "/home/you/.config/narwharf/you.sec"; narwharf deploy takes it from client.toml otherwise
      };

      # What is promoted builds before it is.
      checks.${system}.release = self.packages.${system}.release;
    };
}
