{
  description = "A binary cache";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  inputs.narwharf.url = "git+https://example.org/narwharf"; # where you have it from
  inputs.narwharf.inputs.nixpkgs.follows = "nixpkgs";

  outputs = { nixpkgs, narwharf, ... }: {
    nixosConfigurations.cache = nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [ narwharf.nixosModules.server ./cache.nix ];
    };
  };
}
