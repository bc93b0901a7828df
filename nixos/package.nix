# The package: pkgs.callPackage ./nixos/package.nix { }.
{ lib
, buildGoModule
, installShellFiles
, stdenv
, version ? "dev"
}:

buildGoModule {
  pname = "narwharf";
  inherit version;

  # What is compiled, and nothing else: a change to the docs or the modules builds nothing anew.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.difference
      (lib.fileset.unions [ ../go.mod ../go.sum ../cmd ../cache ../narinfo ../signing ../hooks ../nixos ../docs/docs.go ../docs/runbook.md ])
      (lib.fileset.unions [ ./modules ./tests ./package.nix (lib.fileset.maybeMissing ./templates) (lib.fileset.maybeMissing ./lib.nix) ]);
  };
  subPackages = [ "cmd/narwharf" ];

  # make vendor-hash writes it, and a test compares it with what go mod vendor gives.
  vendorHash = "sha256-sbdXvwAIxWS6MLshKrUOWVeMiFZbgHoSO++qglj8dzI=";
  env.CGO_ENABLED = 0;
  ldflags = [ "-s" "-w" "-X main.version=${version}" ];

  # They need Nix clients, the network and mount namespaces: make test.
  doCheck = false;

  nativeBuildInputs = [ installShellFiles ];
  postInstall = lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    installShellCompletion --cmd narwharf \
      --bash <($out/bin/narwharf completion bash) \
      --zsh <($out/bin/narwharf completion zsh) \
      --fish <($out/bin/narwharf completion fish)
    $out/bin/narwharf man man
    installManPage man/*
  '';

  meta = {
    description = "Nix binary cache whose channels are deploy targets";
    license = lib.licenses.mit;
    mainProgram = "narwharf";
    # On macOS it is the command line alone.
    platforms = lib.platforms.linux ++ lib.platforms.darwin;
  };
}
