"""The project's settings: the lines about ascend_middleware are what it takes."""

import os
import secrets
from pathlib import Path

EXAMPLES = Path(__file__).parents[2]

DEBUG = False
SECRET_KEY = os.environ.get("SECRET_KEY") or secrets.token_hex()
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"

INSTALLED_APPS = ["ascend_middleware.django"]
MIDDLEWARE = [
    "ascend_middleware.django.TripwireMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "ascend_middleware.django.AscendMiddleware",  # last
]
ASCEND = {"rules": EXAMPLES / "ascend.toml", "api_url": f"local:{EXAMPLES / 'policy.toml'}", "strict": True}
