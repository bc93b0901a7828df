{ imports = [ ./server.nix ./agent.nix ./client.nix ]; }
