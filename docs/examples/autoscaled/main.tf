# An autoscaled group whose machines become hosts of the channel "web" at their first boot. The
# launch template's user_data is what narwharf bootstrap printed, and holds no secret:
#
#   narwharf bootstrap web --server https://cache.example.org --identity aws --target web \
#     --key deploy.pub --content-key ci.pub --agent "$(nix build --print-out-paths .#narwharf)" > user-data.sh
#
# The server knows the role:
#
#   [[access.aws]]
#   name = "asg"
#   account = "123456789012"
#   role = "web"
#   scopes = ["follow:web"]
#   hosts = "asg-*"
#   forget_after = "24h"

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "subnets" {
  type        = list(string)
  description = "Where machines are started."
}

variable "security_groups" {
  type        = list(string)
  description = "What may reach them; they reach the cache over HTTPS, and STS by it."
}

variable "target_group" {
  type        = string
  description = "The ARN of the load balancer's target group."
}

data "aws_ami" "nixos" {
  owners      = ["427812963091"]
  most_recent = true

  filter {
    name   = "name"
    values = ["nixos/26.05*"]
  }
  filter {
    name   = "architecture"
    values = ["x86_64"]
  }
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "lifecycle" {
  statement {
    actions   = ["autoscaling:CompleteLifecycleAction"]
    resources = [aws_autoscaling_group.web.arn]
  }
}

# Its name is what the server knows; sts:GetCallerIdentity, by which machines join, needs no right.
resource "aws_iam_role" "web" {
  name               = "web"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "lifecycle" {
  role   = aws_iam_role.web.id
  policy = data.aws_iam_policy_document.lifecycle.json
}

resource "aws_iam_instance_profile" "web" {
  role = aws_iam_role.web.name
}

resource "aws_launch_template" "web" {
  name_prefix            = "web-"
  image_id               = data.aws_ami.nixos.id
  instance_type          = "t3.small"
  vpc_security_group_ids = var.security_groups
  user_data              = filebase64("${path.module}/user-data.sh")

  iam_instance_profile {
    arn = aws_iam_instance_profile.web.arn
  }
  metadata_options {
    http_tokens = "required"
  }
  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_size = 20
    }
  }
}

resource "aws_autoscaling_group" "web" {
  name                = "web"
  min_size            = 2
  max_size            = 10
  vpc_zone_identifier = var.subnets
  target_group_arns   = [var.target_group]
  health_check_type   = "ELB"

  launch_template {
    id      = aws_launch_template.web.id
    version = "$Latest"
  }

  # A machine is in service when it runs what the channel says: its hook post_switch completes this.
  initial_lifecycle_hook {
    name                 = "narwharf"
    lifecycle_transition = "autoscaling:EC2_INSTANCE_LAUNCHING"
    heartbeat_timeout    = 600
    default_result       = "ABANDON"
  }
}
