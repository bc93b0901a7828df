# The VM tests, for people who have a nixpkgs and KVM at hand: nix flake check.
{ pkgs, modules }:

let
  machines = import ./nodes.nix { inherit modules; };
  test = file: pkgs.testers.runNixOSTest (import file { inherit machines pkgs; });
in
{
  deploy = test ./deploy.nix;
  retention = test ./retention.nix;
  bootstrap = test ./bootstrap.nix;
}
