# A host that forgets everything but /nix at each boot, runs nothing that was not built for it, and
# follows a channel. After "Paranoid NixOS" (Xe Iaso, 2021).
{ config, lib, pkgs, ... }:

{
  fileSystems = {
    "/" = { device = "none"; fsType = "tmpfs"; options = [ "size=2G" "mode=755" "noexec" "nosuid" "nodev" ]; };
    "/nix" = { device = "/dev/disk/by-label/nix"; fsType = "ext4"; options = [ "nosuid" "nodev" ]; neededForBoot = true; };
    "/boot" = { device = "/dev/disk/by-label/BOOT"; fsType = "vfat"; options = [ "noexec" "nosuid" "nodev" "umask=0077" ]; };
  };
  boot.loader.systemd-boot.enable = true;
  # The boot loader falls back by itself from a system that does not come up.
  boot.loader.systemd-boot.configurationLimit = 10;

  # What outlives a boot: the agent's state is below /nix by default; its token, the host's keys and the logs are put there.
  environment.etc."machine-id".source = "/nix/persist/etc/machine-id";
  services.openssh = {
    enable = true;
    settings = { PasswordAuthentication = false; KbdInteractiveAuthentication = false; AllowTcpForwarding = false; AllowAgentForwarding = false; X11Forwarding = false; PermitRootLogin = "no"; };
    hostKeys = [{ type = "ed25519"; path = "/nix/persist/etc/ssh/ssh_host_ed25519_key"; }];
  };
  fileSystems."/var/log" = { device = "/nix/persist/var/log"; fsType = "none"; options = [ "bind" "noexec" "nosuid" "nodev" ]; depends = [ "/nix" ]; };

  environment.defaultPackages = lib.mkForce [ ];
  nix.settings.allowed-users = [ "root" ];
  users.mutableUsers = false;
  users.users.ops = { isNormalUser = true; extraGroups = [ "wheel" ]; openssh.authorizedKeys.keys = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJQXzYlrqQ7iGbmLcNHyBhqWwUhLt0TIXfSdtfN6ZxHk ops" ]; };
  security.sudo = {
    execWheelOnly = true;
    # People look and pause; what runs here, the channel says.
    extraRules = [{
      groups = [ "wheel" ];
      commands = map (c: { command = "/run/current-system/sw/bin/narwharf agent ${c}"; options = [ "NOPASSWD" ]; }) [ "status" "pause *" "resume" ];
    }];
  };

  security.auditd.enable = true;
  security.audit = { enable = true; rules = [ "-a exit,always -F arch=b64 -S execve" ]; };
  networking.firewall.allowedTCPPorts = [ 443 ];

  services.narwharf-agent = {
    enable = true;
    settings = {
      server = [ "https://cache.example.org" ];
      channel = "vault";
      host = "vault-1";
      # Two of three have to sign. Nobody has the server's word for anything.
      keys = [ "alice-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" "bob-1:beYS+QlmRx6VzL6l7lZZ4YmOxbyNdm/BEdTbRCv+cyQ=" "carol-1:cRfVjM915vwihSqc1dV/kHFe7gQcy5vd8tVleo64rAg=" ];
      threshold = 2;
      content_keys = [ "ci-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
      foreign_paths = "exact";
      require_fresh = "7d";
      directives.obey = "never";
      drift.action = "return";
      # It says who it is by its SSH host key: no token lies anywhere.
      identity = { kind = "ssh"; ssh_key = "/nix/persist/etc/ssh/ssh_host_ed25519_key"; };
      probation = { minimum = "1m"; confirm_timeout = "2m"; };
      reboot.windows = [ "Sun 03:00-05:00 UTC" ];
    };
    healthChecks = {
      vault = { script = "curl -fsS -o /dev/null https://localhost/v1/sys/health"; path = [ pkgs.curl ]; };
      # A switch must not have opened anything.
      noexec = { script = "findmnt -no OPTIONS / | grep -qw noexec"; path = [ pkgs.util-linux pkgs.gnugrep ]; };
    };
  };

  # The service itself: as little as it needs. systemd-analyze security vault says what is left.
  systemd.services.vault = {
    wantedBy = [ "multi-user.target" ];
    serviceConfig = {
      ExecStart = "${pkgs.caddy}/bin/caddy respond --listen :443 ok";
      DynamicUser = true;
      AmbientCapabilities = [ "CAP_NET_BIND_SERVICE" ];
      CapabilityBoundingSet = [ "CAP_NET_BIND_SERVICE" ];
      StateDirectory = "vault";
      Environment = "XDG_DATA_HOME=%S/vault XDG_CONFIG_HOME=%S/vault HOME=%S/vault";
      LockPersonality = true;
      MemoryDenyWriteExecute = true;
      NoNewPrivileges = true;
      PrivateDevices = true;
      ProtectClock = true;
      ProtectControlGroups = true;
      ProtectHome = true;
      ProtectHostname = true;
      ProtectKernelLogs = true;
      ProtectKernelModules = true;
      ProtectKernelTunables = true;
      ProtectProc = "invisible";
      ProcSubset = "pid";
      ProtectSystem = "strict";
      RestrictAddressFamilies = [ "AF_INET" "AF_INET6" ];
      RestrictNamespaces = true;
      RestrictRealtime = true;
      RestrictSUIDSGID = true;
      SystemCallArchitectures = "native";
      SystemCallFilter = [ "@system-service" "~@privileged @resources" ];
      UMask = "0077";
    };
  };
}
